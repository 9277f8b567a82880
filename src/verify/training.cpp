#include "src/verify/training.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/log.h"
#include "src/train/optimizer.h"

namespace optp {
namespace {

// A step that must be halved more often than that is none: the batch is learnt, as far as rounding goes.
constexpr int kMostHalvings = 40;

void descend(const std::vector<at::Tensor>& parameters, double learning_rate) {
  at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : parameters) parameter.sub_(parameter.grad(), learning_rate);
}

// Takes the step that suits the reference, whose gradients are those of `batch`, and returns its learning rate.
double search_step(OptReferenceImpl& reference, const Batch& batch, double loss, double previous) {
  at::NoGradGuard no_grad;
  const std::vector<at::Tensor> parameters = reference.parameters();
  double squares = 0;
  for (const at::Tensor& parameter : parameters) {
    squares += std::pow(parameter.grad().norm().item<double>(), 2);
  }
  if (squares == 0) return 0;
  double rate = loss / squares;
  if (previous > 0) rate = std::min(rate, 2 * previous);
  descend(parameters, rate);
  for (int halvings = 0;; ++halvings) {
    const double reached = reference.forward(batch.input_ids, batch.attention_mask, batch.labels).loss.item<double>();
    if (reached <= loss - 0.5 * rate * squares || halvings == kMostHalvings) return rate;
    rate /= 2;
    descend(parameters, -rate);  // half of the way back
  }
}

}  // namespace

TrainingCurve train_both(Session& session, const TrainingPlan& plan) {
  TrainingCurve curve;
  Optimizer optimizer(session.gradients(), OptimizerKind::sgd);  // with float32 masters under bfloat16
  double rate = 0;
  const auto fallen = [&] { return curve.reference.back() <= kComfortableFall * curve.reference.front(); };
  for (int64_t epoch = 0; epoch < plan.epochs || (epoch < plan.most_epochs && !fallen()); ++epoch) {
    double model_sum = 0;
    double reference_sum = 0;
    for (int64_t index = 0; index < plan.batches; ++index) {
      const Batch batch = session.training_batch(index);
      const double loss = session.model_loss(batch);
      const double expected = session.reference_loss(batch);
      session.with_reference(
          [&](OptReferenceImpl& reference) { rate = search_step(reference, batch, expected, rate); });
      rate = session.from_reference(rate);
      optimizer.step(rate);
      curve.learning_rates.push_back(rate);
      model_sum += loss;
      reference_sum += expected;
      const double difference = std::abs(loss - expected);
      curve.max_difference = std::isfinite(difference) ? std::max(curve.max_difference, difference)
                                                       : std::numeric_limits<double>::quiet_NaN();
    }
    curve.model.push_back(model_sum / static_cast<double>(plan.batches));
    curve.reference.push_back(reference_sum / static_cast<double>(plan.batches));
    log_line(LogLevel::info, c10::str("        epoch ", epoch + 1, ": mean loss ", curve.model.back()));
  }
  return curve;
}

}  // namespace optp

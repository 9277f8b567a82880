#include "src/verify/training.h"

#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "src/log.h"

namespace optp {
namespace {

double learning_rate_for(Session& session) {
  const double loss = session.reference_loss(session.batch(0));
  double squares = 0;
  session.with_reference([&](OptReferenceImpl& reference) {
    for (const auto& parameter : reference.parameters()) squares += parameter.grad().square().sum().item<double>();
  });
  // Kept near what suits OPT-125M (0.1): a tiny gradient asks for steps that are too long, a steep start for too short
  // ones.
  return std::clamp(0.05 * loss / session.from_reference(squares), 0.1, 0.5);
}

}  // namespace

TrainingCurve train_both(Session& session, int64_t epochs, int64_t batches) {
  TrainingCurve curve;
  curve.learning_rate = learning_rate_for(session);
  const auto options = torch::optim::SGDOptions(curve.learning_rate).momentum(0.9);
  torch::optim::SGD optimizer(session.model()->parameters(), options);
  std::unique_ptr<torch::optim::SGD> reference_optimizer;
  session.with_reference([&](OptReferenceImpl& reference) {
    reference_optimizer = std::make_unique<torch::optim::SGD>(reference.parameters(), options);
  });
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    double model_sum = 0;
    double reference_sum = 0;
    for (int64_t index = 0; index < batches; ++index) {
      const Batch batch = session.batch(index);
      const double loss = session.model_loss(batch);
      optimizer.step();
      const double expected = session.reference_loss(batch);
      session.with_reference([&](OptReferenceImpl&) { reference_optimizer->step(); });
      model_sum += loss;
      reference_sum += expected;
      const double difference = std::abs(loss - expected);
      curve.max_difference = std::isfinite(difference) ? std::max(curve.max_difference, difference)
                                                       : std::numeric_limits<double>::quiet_NaN();
    }
    curve.model.push_back(model_sum / static_cast<double>(batches));
    log_line(LogLevel::info, c10::str("        epoch ", epoch + 1, ": mean loss ", curve.model.back()));
    curve.reference.push_back(reference_sum / static_cast<double>(batches));
  }
  return curve;
}

}  // namespace optp

// Check "backward": one training step on both models.
#include <ATen/ATen.h>

#include <cmath>
#include <set>
#include <string>

#include "src/verify/bfloat16.h"
#include "src/verify/checks.h"

namespace optp {
namespace {

// The norm that clipping would go by, of the last step, against the reference's.
Measurement measure_norm(Session& session) {
  double expected = 0;
  session.with_reference([&](OptReferenceImpl& reference) {
    for (const at::Tensor& parameter : reference.parameters()) expected += square_of_norm(parameter.grad());
  });
  expected = std::sqrt(session.from_reference(expected));
  const double difference = std::abs(session.gradient_norm() - expected) / expected;
  return measure("norm of all gradients, relative", difference, 1e-3,
                 "sharded " + full_number(session.gradient_norm()) + ", reference " + full_number(expected));
}

}  // namespace

Measurements check_backward(Session& session) {
  session.reset_weights();
  const Batch batch = session.batch(0);
  const double loss = session.model_loss(batch);
  const double expected = session.reference_loss(batch);
  Measurements rows{measure_loss("loss", loss, expected, session.options().loss_tolerance)};
  if (!session.in_bfloat16()) rows.push_back(measure_norm(session));
  for (Measurement& row : measure_gradients(session, batch)) rows.push_back(std::move(row));

  constexpr double kLearningRate = 0.01;
  if (session.in_bfloat16()) {
    Optimizer optimizer(session.gradients(), OptimizerKind::sgd);
    for (Measurement& row : measure_bfloat16_step(session, optimizer, kLearningRate)) rows.push_back(std::move(row));
    return rows;
  }

  // An SGD step on both, written out: weight - lr * gradient.
  std::vector<double> changed;
  std::set<std::string> below_rounding;  // parameters to which the reference's step, too, is less than rounding
  {
    at::NoGradGuard no_grad;
    for (const NamedShard& entry : session.shards()) {
      at::Tensor weight = entry.tensor;
      const at::Tensor before = weight.clone();
      weight.sub_(entry.tensor.grad(), kLearningRate);
      changed.push_back(weight.equal(before) ? 0 : 1);
    }
    session.with_reference([&](OptReferenceImpl& reference) {
      for (auto& parameter : reference.named_parameters()) {
        const at::Tensor before = parameter.value().clone();
        parameter.value().sub_(parameter.value().grad(), kLearningRate);
        if (parameter.value().equal(before)) below_rounding.insert(parameter.key());
      }
    });
  }
  changed = max_over_ranks(changed, session.world());  // a parameter is updated if any part of it is
  double unchanged = 0;
  std::string first;
  for (size_t i = 0; i < changed.size(); ++i) {
    const std::string& name = session.shards()[i].name;
    const double expected_change = session.from_reference(below_rounding.contains(name) ? 0.0 : 1.0);
    if (changed[i] != 0 || has_zero_gradient(name) || expected_change == 0) continue;
    if (unchanged == 0) first = name;
    ++unchanged;
  }
  rows.push_back(measure(
      "parameters that the step left as they were", unchanged, 0,
      unchanged > 0 ? "the first: " + first
                    : "of " + std::to_string(changed.size()) + ", unless the reference too had nothing to change"));

  const std::vector<Difference> differences = session.compare_parameters();
  size_t worst = 0;
  for (size_t i = 0; i < differences.size(); ++i) {
    if (!(differences[i].max_abs <= differences[worst].max_abs)) worst = i;
  }
  rows.push_back(measure("weights after an SGD step (lr 0.01)", differences[worst], 1e-6,
                         "furthest apart: " + session.shards()[worst].name));
  return rows;
}

}  // namespace optp

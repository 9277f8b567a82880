// Check "optimizers": several steps of each on both models.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "src/log.h"
#include "src/verify/bfloat16.h"
#include "src/verify/checks.h"
#include "src/verify/optimizers.h"

namespace optp {
namespace {

constexpr int64_t kSteps = 3;
constexpr double kWeightLimit = 1e-5;
// An element whose gradient is below this share of its tensor's largest is taken to be rounding: two right programs
// agree on a gradient to about 1e-6 of the tensor's largest, so below it less than two digits are certain.
constexpr double kRoundingShare = 1e-4;
// Largest share of all elements that may be apart by more than kWeightLimit for that reason.
constexpr double kLargestShare = 0.01;
// And because of a ReLU whose input is so close to 0 that rounding decides its derivative: a unit's row of fc1, mostly.
constexpr double kLargestKinkShare = 1e-4;

// On the rank with the reference: marks the elements whose gradient was rounding alone in some step.
void mark_rounding(const torch::OrderedDict<std::string, at::Tensor>& parameters, std::vector<at::Tensor>& marks) {
  at::NoGradGuard no_grad;
  marks.resize(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor magnitude = parameters[i].value().grad().abs();
    const bool all = has_zero_gradient(parameters[i].key());
    const at::Tensor small =
        all ? at::ones_like(magnitude, at::kBool) : magnitude.lt(kRoundingShare * magnitude.amax().item<double>());
    if (marks[i].defined()) {
      marks[i].logical_or_(small);
    } else {
      marks[i] = small;
    }
  }
}

struct WeightComparison {
  Difference clear;            // of the elements whose gradient is more than rounding
  Difference rounding;         // of the others
  double clear_beyond = 0;     // how many of the former are further apart than kWeightLimit, over all ranks
  double rounding_beyond = 0;  // how many of the latter
};

WeightComparison compare_weights(Session& session, const std::vector<at::Tensor>& marks) {
  at::NoGradGuard no_grad;
  torch::OrderedDict<std::string, at::Tensor> whole;
  std::map<std::string, at::Tensor> marks_by_name;
  session.with_reference([&](OptReferenceImpl& reference) {
    whole = reference.named_parameters();
    for (size_t i = 0; i < marks.size(); ++i) marks_by_name[whole[i].key()] = marks[i];
  });
  std::vector<Difference> differences(2);
  at::Tensor beyond = at::zeros({2}, at::kDouble);
  for (const NamedShard& entry : session.shards()) {
    const bool here = session.has_reference();
    const at::Tensor expected = session.from_reference(here ? whole[entry.name] : at::Tensor(), entry.shard.shape);
    at::Tensor mark = here ? marks_by_name[entry.name].to(at::kByte) : at::empty(entry.shard.shape, at::kByte);
    session.world().broadcast_(mark, 0, "verify marks");
    const at::Tensor small = entry.shard.slice(mark).to(at::kBool);
    const at::Tensor distance = (entry.tensor - entry.shard.slice(expected)).abs_();
    const double largest = expected.abs().amax().item<double>();
    differences[0].add_distance(distance.masked_fill(small, 0), largest);
    differences[1].add_distance(distance.masked_fill(small.logical_not(), 0), largest);
    // Each weight counts once. Most tensors agree closely in every element, and there is nothing to count.
    if (distance.amax().item<double>() <= kWeightLimit || (entry.shard.replicated() && !here) ||
        session.mesh().data().rank() != 0) {
      continue;
    }
    const at::Tensor far = distance.gt(kWeightLimit);
    beyond[0] += far.logical_and(small.logical_not()).sum();
    beyond[1] += far.logical_and(small).sum();
  }
  session.world().all_reduce_(beyond, "verify count");
  differences = max_over_ranks(differences, session.world());
  return {differences[0], differences[1], beyond[0].item<double>(), beyond[1].item<double>()};
}

// Parameters whose states are not as many as the optimizer keeps, or not of the shard's shape. (Adam also counts its
// steps, in a tensor without dimensions.)
double count_misshapen_state(Session& session, const Optimizer& optimizer, const OptimizerCase& entry) {
  std::map<std::string, std::vector<at::Tensor>> states;
  for (const NamedShard& state : optimizer.state()) {
    if (state.tensor.dim() > 0 && !state.name.starts_with("master/"))
      states[state.name.substr(state.name.find('/') + 1)].push_back(state.tensor);
  }
  double wrong = 0;
  for (const NamedShard& shard : session.shards()) {
    const std::vector<at::Tensor>& found = states[shard.name];
    const bool right = static_cast<int64_t>(found.size()) == entry.states &&
                       std::all_of(found.begin(), found.end(),
                                   [&](const auto& state) { return state.sizes() == shard.tensor.sizes(); });
    if (!right) ++wrong;
  }
  return max_over_ranks(wrong, session.world());
}

std::string counted(double count, double share) {
  char text[64];
  std::snprintf(text, sizeof text, "%.0f weights, %.4f %%", count, 100 * share);
  return text;
}

Measurements measure_weights(const Session& session, const OptimizerCase& entry, const WeightComparison& weights) {
  if (!entry.normalizes) {
    Difference all = weights.clear;
    all.max_abs = std::max(all.max_abs, weights.rounding.max_abs);
    return {measure(entry.name + ": weights", all, kWeightLimit)};
  }
  Measurements rows;
  const double bound = 2 * entry.learning_rate * entry.largest_step * static_cast<double>(kSteps);
  const std::string rule = entry.largest_step > 1 ? "limit 2 x lr x steps / sqrt(1 - alpha)" : "limit 2 x lr x steps";
  const auto total = static_cast<double>(session.config().num_parameters());
  if (weights.clear_beyond == 0) {
    rows.push_back(measure(entry.name + ": weights", weights.clear, kWeightLimit));
  } else {
    // Only a ReLU in float32 can excuse them; then they are bounded and counted like those below.
    const bool kinks = session.config().activation_function() == "relu" && session.options().type == at::kFloat;
    const double share = weights.clear_beyond / total;
    rows.push_back(
        measure(entry.name + ": weights next to a ReLU kink", weights.clear, kinks ? bound : kWeightLimit, rule));
    rows.push_back(
        measure(entry.name + ": share of weights apart by more than " + short_number(kWeightLimit) + " there", share,
                kinks ? kLargestKinkShare : 0, counted(weights.clear_beyond, share)));
  }
  rows.push_back(measure(entry.name + ": weights whose gradient is rounding alone", weights.rounding, bound, rule));
  const double share = weights.rounding_beyond / total;
  rows.push_back(measure(entry.name + ": share of weights apart for that reason", share, kLargestShare,
                         counted(weights.rounding_beyond, share)));
  return rows;
}

void measure_optimizer(Session& session, const OptimizerCase& entry, Measurements& rows) {
  session.reset_weights();
  Optimizer optimizer(session.gradients(), entry.options);
  if (session.in_bfloat16()) {
    for (Measurement& row : measure_bfloat16_optimizer(session, optimizer, entry, kSteps)) {
      rows.push_back(std::move(row));
    }
    rows.push_back(measure(entry.name + ": states without their shard's shape",
                           count_misshapen_state(session, optimizer, entry), 0));
    return;
  }
  std::unique_ptr<torch::optim::Optimizer> reference_optimizer;
  session.with_reference([&](OptReferenceImpl& reference) {
    reference_optimizer = entry.make(reference.parameters(), entry.learning_rate);
  });
  std::vector<at::Tensor> marks;
  Measurement worst;
  for (int64_t step = 0; step < kSteps; ++step) {
    const Batch batch = session.batch(step);
    const double loss = session.model_loss(batch);
    optimizer.step(entry.learning_rate);
    const double expected = session.reference_loss(batch);
    session.with_reference([&](OptReferenceImpl& reference) {
      mark_rounding(reference.named_parameters(), marks);
      reference_optimizer->step();
    });
    const Measurement row = measure_loss(entry.name + ": loss of step " + std::to_string(step + 1), loss, expected,
                                         session.options().loss_tolerance);
    if (step == 0 || !(row.value <= worst.value)) worst = row;
  }
  worst.what = entry.name + ": losses of " + std::to_string(kSteps) + " steps";
  worst.detail = "furthest apart: " + worst.detail;
  rows.push_back(worst);

  for (Measurement& row : measure_weights(session, entry, compare_weights(session, marks)))
    rows.push_back(std::move(row));
  rows.push_back(measure(entry.name + ": states without their shard's shape",
                         count_misshapen_state(session, optimizer, entry), 0));
}

}  // namespace

Measurements check_optimizers(Session& session) {
  Measurements rows;
  for (const OptimizerCase& entry : optimizer_cases()) {
    log_line(LogLevel::info, "        " + entry.name + ", " + std::to_string(kSteps) + " steps");
    measure_optimizer(session, entry, rows);
  }
  return rows;
}

}  // namespace optp

// Check "optimizers": several steps of each on both models.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "src/verify/checks.h"
#include "src/verify/optimizers.h"

namespace optp {
namespace {

constexpr int64_t kSteps = 3;
constexpr double kWeightLimit = 1e-5;
// An element whose gradient is below this share of its tensor's largest is taken to be rounding: two right programs agree on
// a gradient to about 1e-6 of the tensor's largest, so below it less than two digits are certain.
constexpr double kRoundingShare = 1e-4;
// Largest share of all elements that may be apart by more than kWeightLimit for that reason.
constexpr double kLargestShare = 0.01;

// On the rank with the reference: marks the elements whose gradient was rounding alone in some step.
void mark_rounding(const torch::OrderedDict<std::string, at::Tensor>& parameters, std::vector<at::Tensor>& marks) {
  at::NoGradGuard no_grad;
  marks.resize(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor magnitude = parameters[i].value().grad().abs();
    const bool all = has_zero_gradient(parameters[i].key());
    const at::Tensor small = all ? at::ones_like(magnitude, at::kBool)
                                 : magnitude.lt(kRoundingShare * magnitude.amax().item<double>());
    if (marks[i].defined()) {
      marks[i].logical_or_(small);
    } else {
      marks[i] = small;
    }
  }
}

struct WeightComparison {
  Difference tight;     // of the elements that must agree
  Difference rounding;  // of those whose gradient is rounding
  double beyond = 0;    // how many of the latter are further apart than kWeightLimit, over all ranks
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
  double beyond = 0;
  for (const NamedShard& entry : session.shards()) {
    const bool here = session.has_reference();
    const at::Tensor expected = session.from_reference(here ? whole[entry.name] : at::Tensor(), entry.shard.shape);
    at::Tensor mark = here ? marks_by_name[entry.name].to(at::kByte) : at::empty(entry.shard.shape, at::kByte);
    session.world().broadcast_(mark, 0, "verify marks");
    const at::Tensor small = entry.shard.slice(mark).to(at::kBool);
    at::Tensor distance = (entry.tensor - entry.shard.slice(expected)).abs_();
    const double largest = expected.abs().amax().item<double>();
    const auto far = static_cast<double>(distance.gt(kWeightLimit).logical_and_(small).sum().item<int64_t>());
    const double most = distance.amax().item<double>();
    differences[0].add_distance(distance.masked_fill(small, 0), largest);
    // Most tensors agree closely in every element; only the others need a second look.
    differences[1].add_distance(most <= kWeightLimit ? distance : distance.masked_fill_(small.logical_not_(), 0), largest);
    if (!entry.shard.replicated() || session.has_reference()) beyond += far;  // each weight counts once
  }
  at::Tensor total = at::scalar_tensor(beyond, at::kDouble);
  session.world().all_reduce_(total, "verify count");
  differences = max_over_ranks(differences, session.world());
  return {differences[0], differences[1], total.item<double>()};
}

double count_misshapen_state(Session& session, torch::optim::Optimizer& optimizer, const OptimizerCase& entry) {
  double wrong = 0;
  for (const NamedShard& shard : session.shards()) {
    const auto found = optimizer.state().find(shard.tensor.unsafeGetTensorImpl());
    if (found == optimizer.state().end()) {
      ++wrong;
      continue;
    }
    for (const at::Tensor& state : entry.state_of(*found->second)) wrong += state.sizes() == shard.tensor.sizes() ? 0 : 1;
  }
  return max_over_ranks(wrong, session.world());
}

void measure_optimizer(Session& session, const OptimizerCase& entry, Measurements& rows) {
  session.reset_weights();
  auto optimizer = entry.make(session.model()->parameters(), entry.learning_rate);
  std::unique_ptr<torch::optim::Optimizer> reference_optimizer;
  session.with_reference([&](OptReferenceImpl& reference) {
    reference_optimizer = entry.make(reference.parameters(), entry.learning_rate);
  });
  std::vector<at::Tensor> marks;
  Measurement worst;
  for (int64_t step = 0; step < kSteps; ++step) {
    const Batch batch = session.batch(step);
    const double loss = session.model_loss(batch);
    optimizer->step();
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

  const WeightComparison weights = compare_weights(session, marks);
  if (!entry.normalizes) {
    Difference all = weights.tight;
    all.max_abs = std::max(all.max_abs, weights.rounding.max_abs);
    rows.push_back(measure(entry.name + ": weights", all, kWeightLimit));
  } else {
    rows.push_back(measure(entry.name + ": weights", weights.tight, kWeightLimit));
    const double bound = 2 * entry.learning_rate * entry.largest_step * static_cast<double>(kSteps);
    rows.push_back(measure(entry.name + ": weights whose gradient is rounding alone", weights.rounding, bound,
                           "limit " + std::string(entry.largest_step > 1 ? "2 x lr x steps / sqrt(1 - alpha)"
                                                                         : "2 x lr x steps")));
    const double share = weights.beyond / static_cast<double>(session.config().num_parameters());
    char percent[32];
    std::snprintf(percent, sizeof percent, "%.4f %%", 100 * share);
    rows.push_back(measure(entry.name + ": share of weights apart for that reason", share, kLargestShare,
                           full_number(weights.beyond) + " weights, " + percent));
  }
  rows.push_back(measure(entry.name + ": states without their shard's shape",
                         count_misshapen_state(session, *optimizer, entry), 0));
}

}  // namespace

Measurements check_optimizers(Session& session) {
  Measurements rows;
  for (const OptimizerCase& entry : optimizer_cases()) measure_optimizer(session, entry, rows);
  return rows;
}

}  // namespace optp

#include "src/train/training_step.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <vector>

#include "src/process_memory.h"
#include "src/train/evaluation.h"

namespace optp {

TrainingStep::TrainingStep(const LossFunction& loss_sum, const Mesh& mesh, Gradients& gradients, Optimizer& optimizer,
                           int64_t rows, double grad_clip)
    : loss_sum_(loss_sum),
      mesh_(mesh),
      gradients_(gradients),
      optimizer_(optimizer),
      rows_(rows),
      grad_clip_(grad_clip) {}

StepOutcome TrainingStep::run(const Examples& part, int64_t step, int64_t first_example, double lr, int stop_code) {
  at::Tensor targets = at::scalar_tensor(count_targets(part.target), at::kLong);
  mesh_.data().all_reduce_(targets, "step targets");
  StepOutcome outcome{.targets = targets.item<int64_t>()};
  TORCH_CHECK_VALUE(outcome.targets > 0, "step ", step, ": no target of the batch counts; leave such examples out.");

  const double loss = backward(part, step, first_example, outcome.targets);

  // Each number in a place of its rank's own, all ranks know all of them after the sum: loss, stop code, memory.
  const auto world = static_cast<size_t>(mesh_.world().size()), rank = static_cast<size_t>(mesh_.world().rank());
  std::vector<double> sums(1 + 2 * world, 0.0);
  if (mesh_.tensor().rank() == 0) sums[0] = loss;
  sums[1 + rank] = stop_code;
  sums[1 + world + rank] = static_cast<double>(peak_resident_bytes());
  const GradientTotals totals = gradients_.finish(sums);

  outcome.loss = totals.sums[0];
  outcome.grad_norm = totals.norm;
  outcome.skipped = !totals.finite;
  const auto middle = totals.sums.begin() + 1 + static_cast<std::ptrdiff_t>(world);
  outcome.stop_code = static_cast<int>(*std::max_element(totals.sums.begin() + 1, middle));
  outcome.peak_rss_bytes = static_cast<int64_t>(*std::max_element(middle, totals.sums.end()));
  if (outcome.skipped) return outcome;
  RECORD_USER_SCOPE("optimizer/clip and update");
  if (grad_clip_ > 0) gradients_.clip(totals.norm, grad_clip_);
  optimizer_.step(lr);
  return outcome;
}

// This copy's share of the mean loss.
double TrainingStep::backward(const Examples& part, int64_t step, int64_t first_example, int64_t targets) {
  gradients_.start_step();
  const int64_t size = part.input.size(0);
  double loss = 0;
  for (int64_t first = 0; first < size; first += rows_) {
    const int64_t count = std::min(rows_, size - first);
    if (first + count == size) gradients_.reduce_in_next_backward();
    at::Tensor share;
    {
      RECORD_USER_SCOPE("forward/forward");
      share = loss_sum_({.input = part.input.narrow(0, first, count),
                         .target = part.target.narrow(0, first, count),
                         .step = step,
                         .first_example = first_example + first}) /
              targets;
    }
    RECORD_USER_SCOPE("backward/backward");
    share.backward();
    loss += share.item<double>();
  }
  return loss;
}

}  // namespace optp

#include "src/train/evaluation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>

namespace optp {

int64_t count_targets(const at::Tensor& target) {
  constexpr int64_t kIgnored = -100;
  if (!at::isIntegralType(target.scalar_type(), /*includeBool=*/false)) return target.numel();
  return target.ne(kIgnored).sum().item<int64_t>();
}

std::optional<double> mean_loss(torch::nn::Module& module, const LossFunction& loss_sum, const TrainingSet& set,
                                const Mesh& mesh, int64_t rows, const std::function<bool()>& stop) {
  const at::NoGradGuard no_gradients;
  module.eval();
  const int64_t copies = mesh.data().size();
  at::Tensor totals = at::zeros({2}, at::kDouble);  // sum, count
  for (int64_t round = 0; round < set.size(); round += copies * rows) {
    if (stop()) {
      module.train();
      return std::nullopt;
    }
    const int64_t first = round + mesh.data().rank() * rows;
    const int64_t count = std::min(rows, set.size() - first);
    if (count <= 0) continue;  // the last round need not have something for every copy
    const Examples examples = set.read(/*epoch=*/0, first, count);
    const at::Tensor sum =
        loss_sum({.input = examples.input, .target = examples.target, .step = 0, .first_example = first});
    totals[0] += sum.to(at::kDouble);
    totals[1] += count_targets(examples.target);
  }
  module.train();
  mesh.data().all_reduce_(totals, "evaluation loss");
  return totals[0].item<double>() / totals[1].item<double>();
}

}  // namespace optp

// The loss on a set that is not trained on.
#pragma once

#include <functional>
#include <optional>

#include "src/train/trainer.h"

namespace optp {

/// The mean loss over all examples of `set`, in file order: each copy of the model takes its part, at most `rows`
/// examples at once. The module is left in training mode. `stop` is asked between batches, as often on every rank, and
/// must answer the same on all: true breaks off. Collective; the same bits on every rank.
std::optional<double> mean_loss(torch::nn::Module& module, const LossFunction& loss_sum, const TrainingSet& set,
                                const Mesh& mesh, int64_t rows, const std::function<bool()>& stop);

/// Elements of a target that count.
int64_t count_targets(const at::Tensor& target);

}  // namespace optp

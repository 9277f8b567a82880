// The optimizers that the check "optimizers" holds against each other, and how their steps bound an element.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <memory>
#include <string>
#include <vector>

#include "src/train/optimizer.h"

namespace optp {

struct OptimizerCase {
  std::string name;          ///< "Adam"
  double learning_rate;      ///<
  bool normalizes = false;   ///< a step does not shrink with the gradient, so rounding becomes full-size steps
  double largest_step = 0;   ///< in units of the learning rate, for those that normalize
  OptimizerOptions options;  ///< of the optimizer that `optp train` uses, which the sharded model gets
  int64_t states = 0;        ///< tensors of a parameter's shape that it keeps for each
  /// torch::optim's, for the reference.
  std::unique_ptr<torch::optim::Optimizer> (*make)(const std::vector<at::Tensor>& parameters, double learning_rate);
};

/// Adam, AdamW, SGD with momentum, RMSprop, with PyTorch's defaults but for the learning rate.
const std::vector<OptimizerCase>& optimizer_cases();

}  // namespace optp

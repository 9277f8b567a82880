// The optimizers that the check "optimizers" holds against each other, and how their steps bound an element.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <memory>
#include <string>
#include <vector>

namespace optp {

struct OptimizerCase {
  std::string name;         ///< "Adam"
  double learning_rate;     ///<
  bool normalizes = false;  ///< a step does not shrink with the gradient, so rounding becomes full-size steps
  double largest_step = 0;  ///< in units of the learning rate, for those that normalize
  std::unique_ptr<torch::optim::Optimizer> (*make)(const std::vector<at::Tensor>& parameters, double learning_rate);
  /// The state tensors of one parameter, which must have its shape.
  std::vector<at::Tensor> (*state_of)(const torch::optim::OptimizerParamState& state);
};

/// Adam, AdamW, SGD with momentum, RMSprop: torch::optim's, with PyTorch's defaults but for the learning rate.
const std::vector<OptimizerCase>& optimizer_cases();

}  // namespace optp

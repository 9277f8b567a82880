#include "src/verify/optimizers.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

namespace optp {
namespace {

using OptimizerPointer = std::unique_ptr<torch::optim::Optimizer>;
using Tensors = std::vector<at::Tensor>;

}  // namespace

const std::vector<OptimizerCase>& optimizer_cases() {
  // Small learning rates: the steps that rounding decides push the two models apart, and ReLU's kinks amplify that.
  // RMSprop's first step is lr / sqrt(1 - alpha), ten times lr at alpha 0.99.
  static const std::vector<OptimizerCase> cases = {
      {"Adam", 1e-5, true, 1, OptimizerKind::adam, 2,
       [](const Tensors& parameters, double lr) -> OptimizerPointer {
         return std::make_unique<torch::optim::Adam>(parameters, torch::optim::AdamOptions(lr));
       }},
      {"AdamW", 1e-5, true, 1, OptimizerKind::adamw, 2,
       [](const Tensors& parameters, double lr) -> OptimizerPointer {
         return std::make_unique<torch::optim::AdamW>(parameters, torch::optim::AdamWOptions(lr));
       }},
      {"SGD", 0.01, false, 0, OptimizerOptions(OptimizerKind::sgd).momentum(0.9), 1,
       [](const Tensors& parameters, double lr) -> OptimizerPointer {
         return std::make_unique<torch::optim::SGD>(parameters, torch::optim::SGDOptions(lr).momentum(0.9));
       }},
      {"RMSprop", 1e-6, true, 10, OptimizerKind::rmsprop, 1,
       [](const Tensors& parameters, double lr) -> OptimizerPointer {
         return std::make_unique<torch::optim::RMSprop>(parameters, torch::optim::RMSpropOptions(lr).alpha(0.99));
       }},
  };
  return cases;
}

}  // namespace optp

#include "src/verify/optimizers.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

namespace optp {
namespace {

using torch::optim::OptimizerParamState;
using Optimizer = std::unique_ptr<torch::optim::Optimizer>;
using Tensors = std::vector<at::Tensor>;

}  // namespace

const std::vector<OptimizerCase>& optimizer_cases() {
  // Small learning rates: the steps that rounding decides push the two models apart, and ReLU's kinks amplify that.
  // RMSprop's first step is lr / sqrt(1 - alpha), ten times lr at alpha 0.99.
  static const std::vector<OptimizerCase> cases = {
      {"Adam", 1e-5, true, 1,
       [](const Tensors& parameters, double lr) -> Optimizer {
         return std::make_unique<torch::optim::Adam>(parameters, torch::optim::AdamOptions(lr));
       },
       [](const OptimizerParamState& state) -> Tensors {
         const auto& adam = static_cast<const torch::optim::AdamParamState&>(state);
         return {adam.exp_avg(), adam.exp_avg_sq()};
       }},
      {"AdamW", 1e-5, true, 1,
       [](const Tensors& parameters, double lr) -> Optimizer {
         return std::make_unique<torch::optim::AdamW>(parameters, torch::optim::AdamWOptions(lr));
       },
       [](const OptimizerParamState& state) -> Tensors {
         const auto& adam = static_cast<const torch::optim::AdamWParamState&>(state);
         return {adam.exp_avg(), adam.exp_avg_sq()};
       }},
      {"SGD", 0.01, false, 0,
       [](const Tensors& parameters, double lr) -> Optimizer {
         return std::make_unique<torch::optim::SGD>(parameters, torch::optim::SGDOptions(lr).momentum(0.9));
       },
       [](const OptimizerParamState& state) -> Tensors {
         return {static_cast<const torch::optim::SGDParamState&>(state).momentum_buffer()};
       }},
      {"RMSprop", 1e-6, true, 10,
       [](const Tensors& parameters, double lr) -> Optimizer {
         return std::make_unique<torch::optim::RMSprop>(parameters, torch::optim::RMSpropOptions(lr).alpha(0.99));
       },
       [](const OptimizerParamState& state) -> Tensors {
         return {static_cast<const torch::optim::RMSpropParamState&>(state).square_avg()};
       }},
  };
  return cases;
}

}  // namespace optp

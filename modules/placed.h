// Modules of torch::nn on a device and in a type of one's choice.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <utility>

namespace optp {

/// Makes a module of torch::nn whose parameters have the type and device of `tensor_options`, the meta device included:
/// such parameters have shapes and no memory, and `Module::to` cannot move there.
///
///     torch::nn::Linear linear(placed<torch::nn::LinearImpl>(torch::nn::LinearOptions(2, 3), tensor_options));
template <typename Impl, typename Options>
std::shared_ptr<Impl> placed(const Options& options, const at::TensorOptions& tensor_options) {
  struct Placed : Impl {
    Placed(const Options& options, const at::TensorOptions& tensor_options) : Impl(options) {
      for (auto& item : this->parameters_) {
        at::Tensor& parameter = item.value();
        if (parameter.defined()) parameter = at::empty(parameter.sizes(), tensor_options).set_requires_grad(true);
      }
      this->weight = this->parameters_["weight"];
      if (this->bias.defined()) this->bias = this->parameters_["bias"];
    }
  };
  if (tensor_options.device().is_meta()) return std::make_shared<Placed>(options, tensor_options);
  auto module = std::make_shared<Impl>(options);
  module->to(c10::typeMetaToScalarType(tensor_options.dtype()));
  return module;
}

}  // namespace optp

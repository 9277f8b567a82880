#include "parallel/activation_checkpoint.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <string>
#include <utility>

namespace optp {
namespace {

using torch::autograd::variable_list;

// Runs a backward pass of its own inside the one that it is part of.
class CheckpointBackward : public torch::autograd::Node {
 public:
  CheckpointBackward(std::function<at::Tensor(const at::Tensor&)> body, const at::Tensor& input)
      : body_(std::move(body)), input_(input, /*is_output=*/false), input_wanted_(input.requires_grad()) {}

  variable_list apply(variable_list&& gradients) override {
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    if (!gradients[0].defined()) return {at::Tensor()};
    TORCH_CHECK(torch::autograd::Engine::get_default_engine().is_checkpoint_valid(),
                "checkpointed activations give their gradients through backward() alone; call backward() in place of "
                "autograd::grad(), or turn activation checkpointing off.");
    const at::AutoGradMode with_gradients(true);
    at::Tensor input = input_.unpack().detach().requires_grad_(input_wanted_);
    torch::autograd::backward({body_(input)}, {gradients[0]});
    return {std::move(input.mutable_grad())};
  }

  void release_variables() override {
    released_ = true;
    body_ = nullptr;
    input_.reset_data();
  }
  std::string name() const override { return "optp::CheckpointBackward"; }

 private:
  std::function<at::Tensor(const at::Tensor&)> body_;
  torch::autograd::SavedVariable input_;
  bool input_wanted_;
  bool released_ = false;
};

}  // namespace

at::Tensor checkpoint_activations(std::function<at::Tensor(const at::Tensor&)> body, const at::Tensor& input,
                                  at::TensorList parameters) {
  const bool wanted = input.requires_grad() || std::any_of(parameters.begin(), parameters.end(), [](const auto& p) {
                        return p.defined() && p.requires_grad();
                      });
  if (!at::GradMode::is_enabled() || !wanted) return body(input);
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    output = body(input.detach());
  }
  auto node = c10::make_intrusive<CheckpointBackward>(std::move(body), input);
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  torch::autograd::set_history(output, c10::intrusive_ptr<torch::autograd::Node>(std::move(node)));
  return output;
}

}  // namespace optp

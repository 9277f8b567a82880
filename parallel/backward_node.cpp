#include "parallel/backward_node.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <string>
#include <utility>

namespace optp {
namespace {

using torch::autograd::variable_list;

class FunctionBackward : public torch::autograd::Node {
 public:
  explicit FunctionBackward(BackwardFunction backward) : backward_(std::move(backward)) {}

  variable_list apply(variable_list&& gradients) override {
    if (std::none_of(gradients.begin(), gradients.end(), [](const auto& gradient) { return gradient.defined(); })) {
      return variable_list(num_outputs());
    }
    TORCH_CHECK(backward_, torch::autograd::ERR_BACKWARD_TWICE);
    const at::NoGradGuard no_grad;
    return backward_(std::move(gradients));
  }

  void release_variables() override { backward_ = nullptr; }  // with what it holds

  std::string name() const override { return "optp::FunctionBackward"; }

 private:
  BackwardFunction backward_;
};

}  // namespace

void set_backward(std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs, BackwardFunction backward) {
  const bool wanted = std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& t) { return t.requires_grad(); });
  if (!at::GradMode::is_enabled() || !wanted) return;
  auto node = c10::make_intrusive<FunctionBackward>(std::move(backward));
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::set_history(outputs, c10::intrusive_ptr<torch::autograd::Node>(std::move(node)));
}

at::Tensor with_backward(at::Tensor output, const at::Tensor& input,
                         std::function<at::Tensor(const at::Tensor&)> backward) {
  std::vector<at::Tensor> outputs{std::move(output)};
  set_backward(outputs, {input}, [backward = std::move(backward)](std::vector<at::Tensor> gradients) {
    return std::vector<at::Tensor>{backward(gradients[0])};
  });
  return outputs[0];
}

}  // namespace optp

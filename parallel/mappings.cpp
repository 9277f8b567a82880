#include "parallel/mappings.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>
#include <string>
#include <utility>

namespace optp {
namespace {

using torch::autograd::variable_list;

// The backward of a linear mapping of one tensor. A node of our own, since torch::autograd::Function can only carry
// tensors and IValues from forward to backward, and a process group is neither.
class MappingBackward : public torch::autograd::Node {
 public:
  explicit MappingBackward(std::function<at::Tensor(const at::Tensor&)> backward) : backward_(std::move(backward)) {}

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor()};
    at::NoGradGuard no_grad;
    return {backward_(gradients[0])};
  }

  std::string name() const override { return "optp::MappingBackward"; }

 private:
  std::function<at::Tensor(const at::Tensor&)> backward_;
};

// `output`, computed from `input` outside of autograd, with `backward` as its history.
at::Tensor with_backward(at::Tensor output, const at::Tensor& input,
                         std::function<at::Tensor(const at::Tensor&)> backward) {
  if (!at::GradMode::is_enabled() || !input.requires_grad()) return output;
  auto node = c10::make_intrusive<MappingBackward>(std::move(backward));
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  torch::autograd::set_history(output, c10::intrusive_ptr<torch::autograd::Node>(std::move(node)));
  return output;
}

}  // namespace

at::Tensor copy_to(const at::Tensor& input, const ProcessGroup& group, std::string_view site) {
  if (group.size() == 1) return input;
  return with_backward(input.detach(), input, [group, name = std::string(site)](const at::Tensor& gradient) {
    // A copy: autograd may hand the same gradient to another branch.
    at::Tensor sum = gradient.clone(at::MemoryFormat::Contiguous);
    group.all_reduce_(sum, name);
    return sum;
  });
}

at::Tensor reduce_from(const at::Tensor& input, const ProcessGroup& group, std::string_view site) {
  if (group.size() == 1) return input;
  at::Tensor sum = input.detach().clone(at::MemoryFormat::Contiguous);
  group.all_reduce_(sum, site);
  return with_backward(std::move(sum), input, [](const at::Tensor& gradient) { return gradient; });
}

at::Tensor reduce_from_(at::Tensor input, const ProcessGroup& group, std::string_view site) {
  if (group.size() == 1) return input;
  at::Tensor sum = input.detach();
  group.all_reduce_(sum, site);
  // c10d writes behind autograd's back. Bumping the version turns a saved copy of the old value into an error.
  sum.unsafeGetTensorImpl()->bump_version();
  return with_backward(std::move(sum), input, [](const at::Tensor& gradient) { return gradient; });
}

at::Tensor scatter_to(const at::Tensor& input, int64_t dim, const ShardLayout& layout, const ProcessGroup& group,
                      std::string_view site) {
  TORCH_CHECK_VALUE(input.size(dim) == layout.total(), site, ": dimension ", dim, " has ", input.size(dim),
                    " elements and the layout ", layout.total(), "; they must agree.");
  if (group.size() == 1) return input;
  const Range range = layout.range(group.rank());
  return with_backward(input.detach().narrow(dim, range.start, range.size).contiguous(), input,
                       [group, dim, layout, name = std::string(site)](const at::Tensor& gradient) {
                         return group.all_gather(gradient, dim, layout, name);
                       });
}

at::Tensor gather_from(const at::Tensor& input, int64_t dim, const ShardLayout& layout, const ProcessGroup& group,
                       std::string_view site) {
  const Range range = layout.range(group.rank());
  TORCH_CHECK_VALUE(input.size(dim) == range.size, site, ": dimension ", dim, " has ", input.size(dim),
                    " elements and this rank's range ", range.size, "; they must agree.");
  if (group.size() == 1) return input;
  return with_backward(group.all_gather(input, dim, layout, site), input, [dim, range](const at::Tensor& gradient) {
    return gradient.narrow(dim, range.start, range.size).contiguous();
  });
}

}  // namespace optp

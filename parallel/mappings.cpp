#include "parallel/mappings.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include <string>
#include <utility>

#include "parallel/backward_node.h"

namespace optp {

at::Tensor copy_to(const at::Tensor& input, const ProcessGroup& group, std::string_view site) {
  if (group.size() == 1) return input;
  return with_backward(input.detach(), input, [group, name = std::string(site)](const at::Tensor& gradient) {
    // A copy: autograd may hand the same gradient to another branch.
    at::Tensor sum = gradient.clone(at::MemoryFormat::Contiguous);
    group.all_reduce_(sum, name);
    return sum;
  });
}

std::vector<at::Tensor> copy_to(const std::vector<at::Tensor>& inputs, const ProcessGroup& group,
                                std::string_view site) {
  if (group.size() == 1) return inputs;
  const auto passes = [](const at::Tensor& input) { return !input.defined() || !input.requires_grad(); };
  std::vector<at::Tensor> wanted, outputs;
  for (const at::Tensor& input : inputs) {
    if (passes(input)) continue;
    wanted.push_back(input);
    outputs.push_back(input.detach());
  }
  set_backward(outputs, wanted, [group, name = std::string(site)](std::vector<at::Tensor> gradients) {
    std::vector<at::Tensor> rows;
    for (const at::Tensor& gradient : gradients) {
      if (gradient.defined()) rows.push_back(gradient.reshape(-1));
    }
    at::Tensor sum = at::cat(rows);
    group.all_reduce_(sum, name);
    int64_t start = 0;
    for (at::Tensor& gradient : gradients) {
      if (!gradient.defined()) continue;
      gradient = sum.narrow(0, start, gradient.numel()).view(gradient.sizes());
      start += gradient.numel();
    }
    return gradients;
  });
  std::vector<at::Tensor> results;
  auto output = outputs.begin();
  for (const at::Tensor& input : inputs) results.push_back(passes(input) ? input : *output++);
  return results;
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

at::Tensor all_gather_to(const at::Tensor& input, int64_t dim, const ShardLayout& layout, const ProcessGroup& group,
                         std::string_view forward_site, std::string_view backward_site) {
  if (group.size() == 1) return input;
  return with_backward(group.all_gather(input, dim, layout, forward_site), input,
                       [group, dim, layout, name = std::string(backward_site)](const at::Tensor& gradient) {
                         return group.reduce_scatter(gradient, dim, layout, name);
                       });
}

at::Tensor reduce_scatter_from(const at::Tensor& input, const at::Tensor& bias, int64_t dim, const ShardLayout& layout,
                               const ProcessGroup& group, std::string_view forward_site,
                               std::string_view backward_site) {
  if (group.size() == 1) return bias.defined() ? input + bias : input;
  std::vector<at::Tensor> output{group.reduce_scatter(input, dim, layout, forward_site)};
  const bool biased = bias.defined();
  if (biased) output[0].add_(bias.detach());
  set_backward(output, {input, bias},
               [group, dim, layout, biased, bias_shape = biased ? bias.sizes().vec() : std::vector<int64_t>(),
                name = std::string(backward_site)](const std::vector<at::Tensor>& gradients) {
                 const at::Tensor whole = group.all_gather(gradients[0], dim, layout, name);
                 return std::vector<at::Tensor>{whole, biased ? at::sum_to(whole, bias_shape) : at::Tensor()};
               });
  return output[0];
}

}  // namespace optp

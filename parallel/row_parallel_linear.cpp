#include "parallel/row_parallel_linear.h"

#include <ATen/ATen.h>

#include <ostream>
#include <utility>

#include "parallel/mappings.h"
#include "parallel/product.h"

namespace optp {

RowParallelLinearImpl::RowParallelLinearImpl(RowParallelLinearOptions options_, ProcessGroup group)
    : options(std::move(options_)),
      group_(std::move(group)),
      layout_(options.in_features(), group_.size(), options.block()),
      forward_site_(options.name() + " forward"),
      backward_site_(options.name() + " backward") {
  RowParallelLinearImpl::reset();
}

void RowParallelLinearImpl::reset() {
  const int64_t columns = layout_.range(group_.rank()).size;
  weight = register_parameter("weight", at::empty({options.out_features(), columns}, options.tensor_options()));
  if (options.bias()) bias = register_parameter("bias", at::empty({options.out_features()}, options.tensor_options()));
}

void RowParallelLinearImpl::pretty_print(std::ostream& stream) const {
  stream << "optp::RowParallelLinear(in_features=" << options.in_features()
         << ", local=" << layout_.range(group_.rank()).size << ", out_features=" << options.out_features()
         << ", bias=" << options.bias() << ")";
}

at::Tensor RowParallelLinearImpl::forward(const at::Tensor& input, const std::optional<TokenSlices>& slices) {
  if (slices) {
    TORCH_CHECK_VALUE(options.input_is_parallel(), options.name(),
                      ": slices of the tokens come from an input that is parallel; leave input_is_parallel on.");
    return reduce_scatter_from(product(input, stored_weight()), bias, 0, slices->layout, group_, forward_site_,
                               backward_site_);
  }
  const at::Tensor part = options.input_is_parallel() ? input : scatter_to(input, -1, layout_, group_, backward_site_);
  at::Tensor sum = reduce_from_(product(part, stored_weight()), group_, forward_site_);
  return bias.defined() ? sum.add_(bias) : sum;
}

void RowParallelLinearImpl::narrow_weight(at::ScalarType type) {
  narrow_weight_(weight, weight_scale_, type, &group_, options.name() + " narrow");
}

std::map<std::string, ParameterShard> RowParallelLinearImpl::sharded_parameters() const {
  return {{"weight", {{options.out_features(), options.in_features()}, 1, layout_, group_.rank()}}};
}

}  // namespace optp

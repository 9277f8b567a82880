#include "parallel/column_parallel_linear.h"

#include <ATen/ATen.h>

#include <ostream>
#include <utility>

#include "parallel/mappings.h"
#include "parallel/product.h"

namespace optp {

ColumnParallelLinearImpl::ColumnParallelLinearImpl(ColumnParallelLinearOptions options_, ProcessGroup group)
    : options(std::move(options_)),
      group_(std::move(group)),
      layout_(options.out_features(), group_.size(), options.block()),
      forward_site_(options.name() + " forward"),
      backward_site_(options.name() + " backward") {
  ColumnParallelLinearImpl::reset();
}

void ColumnParallelLinearImpl::reset() {
  const int64_t rows = layout_.range(group_.rank()).size;
  weight = register_parameter("weight", at::empty({rows, options.in_features()}, options.tensor_options()));
  if (options.bias()) bias = register_parameter("bias", at::empty({rows}, options.tensor_options()));
}

void ColumnParallelLinearImpl::pretty_print(std::ostream& stream) const {
  stream << "optp::ColumnParallelLinear(in_features=" << options.in_features()
         << ", out_features=" << options.out_features() << ", local=" << layout_.range(group_.rank()).size
         << ", bias=" << options.bias() << ")";
}

at::Tensor ColumnParallelLinearImpl::forward(const at::Tensor& input, const std::optional<TokenSlices>& slices) {
  if (slices) {
    TORCH_CHECK_VALUE(!weight.defined() || weight.scalar_type() == input.scalar_type(), options.name(), ": weights in ",
                      weight.scalar_type(),
                      " do not serve slices of the tokens; compute without sequence parallelism.");
    TORCH_CHECK_VALUE(!options.gather_output(), options.name(),
                      ": the output for a slice of the tokens is not gathered; leave gather_output off.");
    return gathered_products(input, {{weight, bias}}, *slices, group_,
                             {forward_site_, options.name() + " regather", backward_site_})[0];
  }
  const at::Tensor shared = options.copy_input() ? copy_to(input, group_, backward_site_) : input;
  const at::Tensor output = product(shared, stored_weight(), bias);
  return options.gather_output() ? gather_from(output, -1, layout_, group_, forward_site_) : output;
}

void ColumnParallelLinearImpl::narrow_weight(at::ScalarType type) {
  narrow_weight_(weight, weight_scale_, type, /*group=*/nullptr, options.name());
}

std::map<std::string, ParameterShard> ColumnParallelLinearImpl::sharded_parameters() const {
  const int64_t part = group_.rank();
  std::map<std::string, ParameterShard> shards;
  shards["weight"] = {{options.out_features(), options.in_features()}, 0, layout_, part};
  if (options.bias()) shards["bias"] = {{options.out_features()}, 0, layout_, part};
  return shards;
}

}  // namespace optp

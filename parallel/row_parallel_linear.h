// A linear layer whose input features are shared by the ranks of a group.
#pragma once

#include <c10/core/TensorOptions.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <map>
#include <optional>
#include <string>

#include "parallel/parameter_shard.h"
#include "parallel/process_group.h"
#include "parallel/sequence_parallel.h"
#include "parallel/shard.h"
#include "parallel/stored_weight.h"

namespace optp {

struct RowParallelLinearOptions {
  RowParallelLinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}

  /// Size of each input row of the whole layer.
  TORCH_ARG(int64_t, in_features);
  /// Size of each output row.
  TORCH_ARG(int64_t, out_features);
  TORCH_ARG(bool, bias) = true;
  /// The input is this rank's range of the features already, as ColumnParallelLinear leaves it.
  TORCH_ARG(bool, input_is_parallel) = true;
  /// Input features that stay together on a rank (a head's size, for example).
  TORCH_ARG(int64_t, block) = 1;
  /// Name of the layer in errors and communication counts.
  TORCH_ARG(std::string, name) = "row_parallel_linear";
  TORCH_ARG(at::TensorOptions, tensor_options);
};

/// y = x W^T + b with W [out_features, in_features] cut by columns (the rows of W^T, hence the name):
///
///                       [ W0^T ]  rank 0
///     [ x0 | x1 ]   *   [------]            ->  y = x0 W0^T + x1 W1^T + b    y [.., out_features] on every rank
///                       [ W1^T ]  rank 1
///
/// Forward adds the partial products over the ranks ("<name> forward": all_reduce); the bias is added once, after the
/// sum. Backward communicates only when the input was whole ("<name> backward": all_gather). Parameters: `weight`
/// [out_features, local in_features]; `bias` [out_features], whole on every rank. They are uninitialised memory until
/// they are filled, as in ColumnParallelLinear.
class RowParallelLinearImpl : public torch::nn::Cloneable<RowParallelLinearImpl>,
                              public ShardedModule,
                              public NarrowableLayer {
 public:
  /// Throws c10::ValueError when group.size() ranks cannot share the input features.
  RowParallelLinearImpl(RowParallelLinearOptions options, ProcessGroup group);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// input [.., local in_features] (all of them unless input_is_parallel) -> [.., out_features], the same on every
  /// rank.
  ///
  /// Sequence parallelism, when `slices` are given: [all tokens, local in_features] -> this rank's slice of the tokens,
  /// [slice, out_features].
  /// "<name> forward": reduce_scatter of the partial products; "<name> backward": all_gather of the slices' gradients.
  /// The bias's gradient is complete on every rank. Only with input_is_parallel.
  at::Tensor forward(const at::Tensor& input, const std::optional<TokenSlices>& slices = {});

  std::map<std::string, ParameterShard> sharded_parameters() const override;
  void narrow_weight(at::ScalarType type) override;
  StoredWeight stored_weight() const { return {weight, weight_scale_}; }
  const ShardLayout& layout() const { return layout_; }

  RowParallelLinearOptions options;
  at::Tensor weight;
  at::Tensor bias;

 private:
  ProcessGroup group_;
  ShardLayout layout_;
  std::string forward_site_;
  std::string backward_site_;
  at::Tensor weight_scale_;  // of an int8 weight, [out_features], of the whole weight's channels
};

TORCH_MODULE(RowParallelLinear);

}  // namespace optp

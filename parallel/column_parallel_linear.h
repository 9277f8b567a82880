// A linear layer whose output features are shared by the ranks of a group.
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

struct ColumnParallelLinearOptions {
  ColumnParallelLinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}

  /// Size of each input row.
  TORCH_ARG(int64_t, in_features);
  /// Size of each output row of the whole layer.
  TORCH_ARG(int64_t, out_features);
  TORCH_ARG(bool, bias) = true;
  /// Return all output features on every rank instead of this rank's range.
  TORCH_ARG(bool, gather_output) = false;
  /// Add the input's gradient over the ranks. Turn it off when several layers share one input that went through
  /// `copy_to` already: one all-reduce then serves them all.
  TORCH_ARG(bool, copy_input) = true;
  /// Output features that stay together on a rank (a head's size, for example).
  TORCH_ARG(int64_t, block) = 1;
  /// Name of the layer in errors and communication counts.
  TORCH_ARG(std::string, name) = "column_parallel_linear";
  TORCH_ARG(at::TensorOptions, tensor_options);
};

/// y = x W^T + b with W [out_features, in_features] cut by rows (the columns of W^T, hence the name):
///
///                 rank 0      rank 1
///     x [.., I] * [ W0^T  |  W1^T  ]  ->  [ y0 | y1 ]      y_r [.., out_features of rank r]
///
/// Forward communicates only with gather_output ("<name> forward": all_gather of the output); backward adds the input's
/// gradient over the ranks once ("<name> backward": all_reduce).
/// Parameters: `weight` [local out_features, in_features], `bias` [local out_features]. They are uninitialised memory
/// until they are filled: copy_from_whole, a checkpoint, or random numbers keyed by name (parallel/random.h).
class ColumnParallelLinearImpl : public torch::nn::Cloneable<ColumnParallelLinearImpl>,
                                 public ShardedModule,
                                 public NarrowableLayer {
 public:
  /// Throws c10::ValueError when group.size() ranks cannot share the output features.
  ColumnParallelLinearImpl(ColumnParallelLinearOptions options, ProcessGroup group);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// input [.., in_features], the same on every rank -> [.., local out_features], or all of them with gather_output.
  ///
  /// Sequence parallelism, when `slices` are given: this rank's slice of the tokens [slice, in_features] -> [all
  /// tokens, local out_features]. "<name> forward": all_gather of the slices; "<name> regather": once more in backward,
  /// if slices->regather; "<name> backward": reduce_scatter of the input's gradient. Not with gather_output.
  at::Tensor forward(const at::Tensor& input, const std::optional<TokenSlices>& slices = {});

  std::map<std::string, ParameterShard> sharded_parameters() const override;
  void narrow_weight(at::ScalarType type) override;
  StoredWeight stored_weight() const { return {weight, weight_scale_}; }
  const ShardLayout& layout() const { return layout_; }

  ColumnParallelLinearOptions options;
  at::Tensor weight;
  at::Tensor bias;

 private:
  ProcessGroup group_;
  ShardLayout layout_;
  std::string forward_site_;
  std::string backward_site_;
  at::Tensor weight_scale_;  // of an int8 weight, [local out_features]
};

TORCH_MODULE(ColumnParallelLinear);

}  // namespace optp

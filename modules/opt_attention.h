// OPT's causal multi-head attention, its heads shared by the ranks of a group.
#pragma once

#include <c10/core/TensorOptions.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <string>
#include <vector>

#include "modules/opt_config.h"
#include "modules/opt_forward_options.h"
#include "parallel/column_parallel_linear.h"
#include "parallel/process_group.h"
#include "parallel/row_parallel_linear.h"

namespace optp {

/// B batch, T tokens, D hidden_size, H local heads, K head_dim. Rank r computes the heads that own its range of the
/// projections' features; a head never spans two ranks. Vaswani et al. (2017), section 3.2, with q scaled by K^-1/2
/// before the product, as OPT does.
///
/// Collectives of q, k and v together, whose input is the same: "<name> backward" all_reduce of the input's gradient;
/// with slices "<name> forward" all_gather, "<name> regather" all_gather in backward, "<name> backward" reduce_scatter.
/// out_proj has its own (RowParallelLinear).
class OptAttentionImpl : public torch::nn::Cloneable<OptAttentionImpl> {
 public:
  /// `name` is the module's path in the model, for communication counts and errors.
  OptAttentionImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                   const at::TensorOptions& tensor_options);

  void reset() override;

  /// hidden [n, D] -> [n, D], n as in OptPass.
  at::Tensor forward(const at::Tensor& hidden, const OptPass& pass, const std::optional<DropoutSource>& dropout);

  ColumnParallelLinear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr};
  RowParallelLinear out_proj{nullptr};

 private:
  // q, k and v of all tokens, [B T, H K] each.
  std::vector<at::Tensor> project(const at::Tensor& hidden, const OptPass& pass);

  OptConfig config_;
  ProcessGroup group_;
  std::string name_;
  at::TensorOptions tensor_options_;
  GatherSites sites_;
};

TORCH_MODULE(OptAttention);

}  // namespace optp

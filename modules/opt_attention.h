// OPT's causal multi-head attention, its heads shared by the ranks of a group.
#pragma once

#include <c10/core/TensorOptions.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <string>

#include "modules/opt_config.h"
#include "parallel/column_parallel_linear.h"
#include "parallel/process_group.h"
#include "parallel/random.h"
#include "parallel/row_parallel_linear.h"

namespace optp {

/// Where dropout takes its numbers from. Absent: no dropout, whatever the configuration says.
struct DropoutSource {
  RandomKey key;               ///< of this step (and, inside the decoder, of the layer)
  int64_t first_sequence = 0;  ///< global index of the batch's first sequence
};

/// Which keys a query may see, besides that none sees the future.
struct AttentionMask {
  at::Tensor additive;          ///< [B, 1, T, T], added to the scores; undefined: no padding, causality alone
  bool has_empty_rows = false;  ///< some query sees no key at all: the sequence begins with padding
};

/// B batch, T tokens, D hidden_size, H local heads, K head_dim. Rank r computes the heads that own its range of the
/// projections' features; a head never spans two ranks. Vaswani et al. (2017), section 3.2, with q scaled by K^-1/2
/// before the product, as OPT does.
class OptAttentionImpl : public torch::nn::Cloneable<OptAttentionImpl> {
 public:
  /// `name` is the module's path in the model, for communication counts and errors.
  OptAttentionImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                   const at::TensorOptions& tensor_options);

  void reset() override;

  /// hidden [B, T, D], whole -> [B, T, D], whole.
  at::Tensor forward(const at::Tensor& hidden, const AttentionMask& mask, const std::optional<DropoutSource>& dropout);

  ColumnParallelLinear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr};
  RowParallelLinear out_proj{nullptr};

 private:
  // [B, H, T, K] each -> [B, H, T, K], with the probabilities spelt out.
  at::Tensor attend_explicitly(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& mask, const std::optional<DropoutSource>& dropout) const;

  OptConfig config_;
  ProcessGroup group_;
  std::string name_;
  at::TensorOptions tensor_options_;
  std::string backward_site_;
};

TORCH_MODULE(OptAttention);

}  // namespace optp

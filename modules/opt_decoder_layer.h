// One layer of OPT's decoder: attention and feed-forward, each with its layer norm and residual.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <string>

#include "modules/opt_attention.h"
#include "modules/opt_config.h"
#include "parallel/column_parallel_linear.h"
#include "parallel/row_parallel_linear.h"

namespace optp {

/// Pre-layer-norm:  x + attention(norm(x)), then x + feed_forward(norm(x)).
/// Post-layer-norm (350m): norm(x + attention(x)), then norm(x + feed_forward(x)).
/// The layer norms work on whole activations and are whole on every rank.
class OptDecoderLayerImpl : public torch::nn::Cloneable<OptDecoderLayerImpl> {
 public:
  OptDecoderLayerImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                      const at::TensorOptions& tensor_options);

  void reset() override;

  /// hidden [B, T, D] -> [B, T, D], the same on every rank. `mask` and `dropout` as in OptAttention.
  at::Tensor forward(const at::Tensor& hidden, const AttentionMask& mask, const std::optional<DropoutSource>& dropout);

  OptAttention self_attn{nullptr};
  torch::nn::LayerNorm self_attn_layer_norm{nullptr}, final_layer_norm{nullptr};
  ColumnParallelLinear fc1{nullptr};
  RowParallelLinear fc2{nullptr};

 private:
  OptConfig config_;
  ProcessGroup group_;
  std::string name_;
  at::TensorOptions tensor_options_;
};

TORCH_MODULE(OptDecoderLayer);

/// The layer norm that OPT uses everywhere: over D, eps 1e-5, affine or not as the configuration says.
torch::nn::LayerNorm opt_layer_norm(const OptConfig& config, const at::TensorOptions& tensor_options);

}  // namespace optp

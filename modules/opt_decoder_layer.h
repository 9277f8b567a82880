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
/// The layer norms are whole on every rank; their inputs are all tokens, or with OptPass::slices this rank's slice, and
/// then "<name> parameters" adds the gradients of the layer norms' parameters over the ranks in one all_reduce.
///
/// What autograd keeps of a layer between forward and backward, in numbers a token, on one of t ranks (s = t with
/// slices, else 1; F = ffn_dim, twice with GELU): 4 D / s + (4 D + F) / t, and (4 / s + num_attention_heads / t)
/// float32 statistics; checkpointed D / s. Dropout adds nothing.
class OptDecoderLayerImpl : public torch::nn::Cloneable<OptDecoderLayerImpl> {
 public:
  OptDecoderLayerImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                      const at::TensorOptions& tensor_options);

  void reset() override;

  /// hidden [n, D] -> [n, D], n as in OptPass. `dropout` has this layer's key.
  at::Tensor forward(const at::Tensor& hidden, const OptPass& pass, const std::optional<DropoutSource>& dropout);

  OptAttention self_attn{nullptr};
  torch::nn::LayerNorm self_attn_layer_norm{nullptr}, final_layer_norm{nullptr};
  ColumnParallelLinear fc1{nullptr};
  RowParallelLinear fc2{nullptr};

 private:
  OptConfig config_;
  ProcessGroup group_;
  std::string name_;
  at::TensorOptions tensor_options_;
  std::string parameters_site_;
};

TORCH_MODULE(OptDecoderLayer);

/// The layer norm that OPT uses everywhere: over D, eps 1e-5, affine or not as the configuration says.
torch::nn::LayerNorm opt_layer_norm(const OptConfig& config, const at::TensorOptions& tensor_options);

/// The same as a function of its parameters, which are undefined where it is not affine.
at::Tensor opt_layer_norm(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace optp

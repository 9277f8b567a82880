// The yardstick: OPT as plain torch::nn modules in one process. It shares no code with the sharded model, so that a
// mistake in one shows as a difference between the two. It is written for plainness, not speed.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "modules/opt_config.h"

namespace optp {

class OptReferenceAttentionImpl : public torch::nn::Module {
 public:
  explicit OptReferenceAttentionImpl(const OptConfig& config);
  /// hidden [B, T, D]; blocked [B, 1, T, T] bool, true where query i must not see key j -> [B, T, D].
  at::Tensor forward(const at::Tensor& hidden, const at::Tensor& blocked);

  torch::nn::Linear k_proj{nullptr}, v_proj{nullptr}, q_proj{nullptr}, out_proj{nullptr};

 private:
  int64_t heads_;
};
TORCH_MODULE(OptReferenceAttention);

class OptReferenceLayerImpl : public torch::nn::Module {
 public:
  explicit OptReferenceLayerImpl(const OptConfig& config);
  at::Tensor forward(at::Tensor hidden, const at::Tensor& blocked);

  OptReferenceAttention self_attn{nullptr};
  torch::nn::LayerNorm self_attn_layer_norm{nullptr}, final_layer_norm{nullptr};
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};

 private:
  bool norm_first_;
  bool gelu_;
};
TORCH_MODULE(OptReferenceLayer);

/// The whole model, with the parameter names of `OPTForCausalLM`. Dropout is not applied: the reference is for
/// comparing. Fresh weights are torch::nn's defaults until initialize() or a loader fills them.
class OptReferenceImpl : public torch::nn::Module {
 public:
  explicit OptReferenceImpl(const OptConfig& config);

  struct Output {
    at::Tensor logits;                      ///< [B, T, V]
    at::Tensor loss;                        ///< [] if labels were given
    std::vector<at::Tensor> hidden_states;  ///< num_hidden_layers + 1 times [B, T, ..]
  };

  /// input_ids [B, T] int64; attention_mask [B, T] int64 of 0 and 1 or undefined; labels [B, T] int64 (-100: left out)
  /// or undefined.
  Output forward(const at::Tensor& input_ids, const at::Tensor& attention_mask = {}, const at::Tensor& labels = {});

  const OptConfig& config() const { return config_; }

 private:
  OptConfig config_;
  torch::nn::Embedding embed_tokens_{nullptr}, embed_positions_{nullptr};
  torch::nn::Linear project_in_{nullptr}, project_out_{nullptr}, lm_head_{nullptr};
  torch::nn::LayerNorm final_layer_norm_{nullptr};
  torch::nn::ModuleList layers_{nullptr};
};
TORCH_MODULE(OptReference);

}  // namespace optp

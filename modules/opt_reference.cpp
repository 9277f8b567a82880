#include "modules/opt_reference.h"

#include <torch/nn/functional/activation.h>
#include <torch/nn/functional/loss.h>

#include <cmath>

namespace optp {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

nn::LayerNorm reference_norm(const OptConfig& config) {
  return nn::LayerNorm(
      nn::LayerNormOptions({config.hidden_size()}).elementwise_affine(config.layer_norm_elementwise_affine()));
}

nn::Linear reference_linear(int64_t in, int64_t out, bool bias) {
  return nn::Linear(nn::LinearOptions(in, out).bias(bias));
}

// The score of a key that a query must not see: far below all others in every type, bfloat16 too.
constexpr double kBlocked = -1e38;

}  // namespace

OptReferenceAttentionImpl::OptReferenceAttentionImpl(const OptConfig& config) : heads_(config.num_attention_heads()) {
  const int64_t width = config.hidden_size();
  k_proj = register_module("k_proj", reference_linear(width, width, config.enable_bias()));
  v_proj = register_module("v_proj", reference_linear(width, width, config.enable_bias()));
  q_proj = register_module("q_proj", reference_linear(width, width, config.enable_bias()));
  out_proj = register_module("out_proj", reference_linear(width, width, config.enable_bias()));
}

at::Tensor OptReferenceAttentionImpl::forward(const at::Tensor& hidden, const at::Tensor& blocked) {
  const int64_t batch = hidden.size(0), tokens = hidden.size(1), width = hidden.size(2), head = width / heads_;
  const at::Tensor q = (q_proj(hidden) / std::sqrt(static_cast<double>(head))).view({batch, tokens, heads_, head});
  const at::Tensor k = k_proj(hidden).view({batch, tokens, heads_, head});
  const at::Tensor v = v_proj(hidden).view({batch, tokens, heads_, head});
  at::Tensor scores = torch::einsum("bihk,bjhk->bhij", {q, k});
  // A row that sees nothing (padding) must stay finite, so a number rather than minus infinity.
  scores = scores.masked_fill(blocked, kBlocked);
  const at::Tensor attended = torch::einsum("bhij,bjhk->bihk", {F::softmax(scores, -1), v});
  return out_proj(attended.reshape({batch, tokens, width}));
}

OptReferenceLayerImpl::OptReferenceLayerImpl(const OptConfig& config)
    : norm_first_(config.do_layer_norm_before()), gelu_(config.activation_function() == "gelu") {
  self_attn = register_module("self_attn", OptReferenceAttention(config));
  self_attn_layer_norm = register_module("self_attn_layer_norm", reference_norm(config));
  fc1 = register_module("fc1", reference_linear(config.hidden_size(), config.ffn_dim(), config.enable_bias()));
  fc2 = register_module("fc2", reference_linear(config.ffn_dim(), config.hidden_size(), config.enable_bias()));
  final_layer_norm = register_module("final_layer_norm", reference_norm(config));
}

at::Tensor OptReferenceLayerImpl::forward(at::Tensor hidden, const at::Tensor& blocked) {
  const auto feed_forward = [&](const at::Tensor& x) {
    const at::Tensor inner = fc1(x);
    return fc2(gelu_ ? F::gelu(inner) : F::relu(inner));
  };
  if (norm_first_) {
    hidden = hidden + self_attn(self_attn_layer_norm(hidden), blocked);
    return hidden + feed_forward(final_layer_norm(hidden));
  }
  hidden = self_attn_layer_norm(hidden + self_attn(hidden, blocked));
  return final_layer_norm(hidden + feed_forward(hidden));
}

OptReferenceImpl::OptReferenceImpl(const OptConfig& config) : config_(config) {
  config.validate();
  const int64_t width = config.hidden_size(), embedding = config.embedding_size();
  auto model = register_module("model", std::make_shared<nn::Module>("OptModel"));
  auto decoder = model->register_module("decoder", std::make_shared<nn::Module>("OptDecoder"));
  embed_tokens_ =
      nn::Embedding(nn::EmbeddingOptions(config.vocab_size(), embedding).padding_idx(config.pad_token_id()));
  embed_positions_ = nn::Embedding(config.max_position_embeddings() + 2, width);
  decoder->register_module("embed_tokens", embed_tokens_.ptr());
  decoder->register_module("embed_positions", embed_positions_.ptr());
  if (embedding != width) {
    project_out_ = decoder->register_module("project_out", reference_linear(width, embedding, false));
    project_in_ = decoder->register_module("project_in", reference_linear(embedding, width, false));
  }
  if (config.do_layer_norm_before() && !config.remove_final_layer_norm()) {
    final_layer_norm_ = decoder->register_module("final_layer_norm", reference_norm(config));
  }
  layers_ = decoder->register_module("layers", nn::ModuleList());
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i) layers_->push_back(OptReferenceLayer(config));
  if (!config.tie_word_embeddings()) {
    lm_head_ = register_module("lm_head", reference_linear(embedding, config.vocab_size(), false));
  }
}

OptReferenceImpl::Output OptReferenceImpl::forward(const at::Tensor& input_ids, const at::Tensor& attention_mask,
                                                   const at::Tensor& labels) {
  Output output;
  const int64_t tokens = input_ids.size(1);
  const at::Tensor real = attention_mask.defined() ? attention_mask : torch::ones_like(input_ids);
  // Positions count real tokens from 0; the table starts two rows in, and padding (position -1) reads row 1.
  const at::Tensor positions = torch::where(real.eq(1), real.cumsum(1) - 1, torch::full_like(real, -1)) + 2;
  const at::Tensor later = torch::arange(tokens).unsqueeze(0) > torch::arange(tokens).unsqueeze(1);  // [i, j]: j > i
  const at::Tensor blocked = later | real.eq(0).unsqueeze(1).unsqueeze(1);                           // [B, 1, T, T]

  at::Tensor x = embed_tokens_(input_ids);
  if (project_in_) x = project_in_(x);
  x = x + embed_positions_(positions);
  for (const auto& layer : *layers_) {
    output.hidden_states.push_back(x);
    x = layer->as<OptReferenceLayer>()->forward(x, blocked);
  }
  if (final_layer_norm_) x = final_layer_norm_(x);
  if (project_out_) x = project_out_(x);
  output.hidden_states.push_back(x);

  output.logits = lm_head_ ? lm_head_(x) : torch::matmul(x, embed_tokens_->weight.t());
  if (labels.defined()) {
    const at::Tensor predictions = output.logits.slice(1, 0, tokens - 1).flatten(0, 1);
    output.loss = F::cross_entropy(predictions, labels.slice(1, 1).flatten());
  }
  return output;
}

}  // namespace optp

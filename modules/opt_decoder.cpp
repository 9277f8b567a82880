#include "modules/opt_decoder.h"

#include <ATen/ATen.h>

#include <limits>
#include <string>

namespace optp {
namespace {

// Query i may see key j if j <= i and j is no padding; all others get the most negative finite number, so that a row
// which sees nothing stays finite.
AttentionMask mask_of(const at::Tensor& attention_mask, at::ScalarType type) {
  if (attention_mask.all().item<bool>()) return {};
  const int64_t tokens = attention_mask.size(1);
  const at::Tensor future = at::ones({tokens, tokens}, at::kBool).triu(/*diagonal=*/1);
  const at::Tensor hidden = attention_mask.eq(0).view({-1, 1, 1, tokens}).logical_or(future);
  const double lowest = type == at::kDouble     ? std::numeric_limits<double>::lowest()
                        : type == at::kBFloat16 ? static_cast<double>(std::numeric_limits<c10::BFloat16>::lowest())
                                                : static_cast<double>(std::numeric_limits<float>::lowest());
  return {at::zeros(hidden.sizes(), type).masked_fill_(hidden, lowest),
          attention_mask.select(1, 0).eq(0).any().item<bool>()};
}

}  // namespace

OptDecoderImpl::OptDecoderImpl(const OptConfig& config, const ProcessGroup& group,
                               const at::TensorOptions& tensor_options)
    : config_(config), group_(group), tensor_options_(tensor_options) {
  OptDecoderImpl::reset();
}

void OptDecoderImpl::reset() {
  const std::string name = "model.decoder";
  const int64_t hidden = config_.hidden_size();
  const int64_t embedding = config_.embedding_size();
  embed_tokens = register_module("embed_tokens",
                                 VocabParallelEmbedding(VocabParallelEmbeddingOptions(config_.vocab_size(), embedding)
                                                            .padding_idx(config_.pad_token_id())
                                                            .name(name + ".embed_tokens")
                                                            .tensor_options(tensor_options_),
                                                        group_));
  embed_positions = register_module(
      "embed_positions", OptLearnedPositionalEmbedding(config_.max_position_embeddings(), hidden, tensor_options_));
  if (config_.has_projections()) {
    const auto type = c10::typeMetaToScalarType(tensor_options_.dtype());
    project_out =
        register_module("project_out", torch::nn::Linear(torch::nn::LinearOptions(hidden, embedding).bias(false)));
    project_in =
        register_module("project_in", torch::nn::Linear(torch::nn::LinearOptions(embedding, hidden).bias(false)));
    project_out->to(type);
    project_in->to(type);
  }
  if (config_.has_final_layer_norm()) {
    final_layer_norm = register_module("final_layer_norm", opt_layer_norm(config_, tensor_options_));
  }
  layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < config_.num_hidden_layers(); ++i) {
    layers->push_back(OptDecoderLayer(config_, group_, name + ".layers." + std::to_string(i), tensor_options_));
  }
}

at::Tensor OptDecoderImpl::forward(const at::Tensor& input_ids, const at::Tensor& attention_mask,
                                   const std::optional<DropoutSource>& dropout,
                                   std::vector<at::Tensor>* hidden_states) {
  TORCH_CHECK_VALUE(input_ids.dim() == 2 && input_ids.scalar_type() == at::kLong && input_ids.numel() > 0,
                    "input_ids are ", input_ids.scalar_type(), " ", input_ids.sizes(),
                    "; pass int64 ids [batch, tokens], at least one of each.");
  TORCH_CHECK_VALUE(input_ids.size(1) <= config_.max_position_embeddings(), "the input has ", input_ids.size(1),
                    " tokens a sequence and the model ", config_.max_position_embeddings(),
                    " positions; shorten the input.");
  const at::Tensor present = attention_mask.defined() ? attention_mask : at::ones_like(input_ids);
  TORCH_CHECK_VALUE(present.sizes() == input_ids.sizes() && present.scalar_type() == at::kLong, "attention_mask is ",
                    present.scalar_type(), " ", present.sizes(), "; pass int64 ", input_ids.sizes(),
                    " as the input_ids.");
  const AttentionMask mask = mask_of(present, c10::typeMetaToScalarType(tensor_options_.dtype()));

  at::Tensor x = embed_tokens(input_ids);  // [B, T, embedding_size]
  if (project_in) x = project_in(x);       // [B, T, D]
  x = x + embed_positions(present);
  for (int64_t i = 0; i < config_.num_hidden_layers(); ++i) {
    if (hidden_states) hidden_states->push_back(x);
    std::optional<DropoutSource> source = dropout;
    if (source) source->key = source->key.with(i);
    x = layers->ptr<OptDecoderLayerImpl>(i)->forward(x, mask, source);
  }
  if (final_layer_norm) x = final_layer_norm(x);
  if (project_out) x = project_out(x);
  if (hidden_states) hidden_states->push_back(x);
  return x;
}

}  // namespace optp

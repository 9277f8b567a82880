#include "modules/opt_decoder.h"

#include <ATen/ATen.h>

#include <limits>
#include <string>

#include "modules/kv_cache.h"
#include "modules/placed.h"
#include "parallel/activation_checkpoint.h"
#include "parallel/mappings.h"
#include "parallel/product.h"

namespace optp {
namespace {

// The last `tokens` of the sequences ask. Query i may see key j if j <= i and j is no padding; all others get the most
// negative finite number, so that a row which sees nothing stays finite.
AttentionMask mask_of(const at::Tensor& attention_mask, int64_t tokens, at::ScalarType type) {
  const int64_t length = attention_mask.size(1);
  // SDPA's own causality counts from the first key, so it serves alone only where there are no earlier ones.
  if ((tokens == length || tokens == 1) && attention_mask.all().item<bool>()) return {};
  const at::Tensor future = at::ones({tokens, length}, at::kBool).triu(/*diagonal=*/1 + length - tokens);
  const at::Tensor hidden = attention_mask.eq(0).view({-1, 1, 1, length}).logical_or(future);
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
    const auto projection = [&](int64_t in, int64_t out) {
      return torch::nn::Linear(
          placed<torch::nn::LinearImpl>(torch::nn::LinearOptions(in, out).bias(false), tensor_options_));
    };
    project_out = register_module("project_out", projection(hidden, embedding));
    project_in = register_module("project_in", projection(embedding, hidden));
  }
  if (config_.has_final_layer_norm()) {
    final_layer_norm = register_module("final_layer_norm", opt_layer_norm(config_, tensor_options_));
  }
  layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < config_.num_hidden_layers(); ++i) {
    layers->push_back(OptDecoderLayer(config_, group_, name + ".layers." + std::to_string(i), tensor_options_));
  }
}

std::optional<TokenSlices> OptDecoderImpl::slices(int64_t tokens, const OptForwardOptions& options) const {
  if (!options.sequence_parallel || group_.size() == 1 || tokens < group_.size()) return {};
  return TokenSlices{{tokens, group_.size()}, /*regather=*/!options.activation_checkpointing};
}

OptPass OptDecoderImpl::begin_pass(const at::Tensor& input_ids, const at::Tensor& present,
                                   const OptForwardOptions& options) const {
  OptPass pass;
  pass.batch = input_ids.size(0);
  pass.tokens = input_ids.size(1);
  pass.mask = mask_of(present, pass.tokens, c10::typeMetaToScalarType(tensor_options_.dtype()));
  pass.slices = slices(input_ids.numel(), options);
  pass.cache = options.cache;
  pass.differentiable = at::GradMode::is_enabled();
  if (pass.slices) pass.first_token = pass.slices->layout.range(group_.rank()).start;
  return pass;
}

at::Tensor OptDecoderImpl::forward(const at::Tensor& input_ids, const OptForwardOptions& options,
                                   std::vector<at::Tensor>* hidden_states) {
  TORCH_CHECK_VALUE(input_ids.dim() == 2 && input_ids.scalar_type() == at::kLong && input_ids.numel() > 0,
                    "input_ids are ", input_ids.scalar_type(), " ", input_ids.sizes(),
                    "; pass int64 ids [batch, tokens], at least one of each.");
  const int64_t length = input_ids.size(1) + (options.cache ? options.cache->length() : 0);
  TORCH_CHECK_VALUE(!options.cache || !options.sequence_parallel,
                    "a key/value cache and sequence parallelism exclude each other; leave one out.");
  const std::vector<int64_t> mask_shape{input_ids.size(0), length};
  const at::Tensor present =
      options.attention_mask.defined() ? options.attention_mask : at::ones(mask_shape, at::kLong);
  TORCH_CHECK_VALUE(present.sizes() == mask_shape && present.scalar_type() == at::kLong, "attention_mask is ",
                    present.scalar_type(), " ", present.sizes(), "; pass int64 ", at::IntArrayRef(mask_shape), ".");
  // Padding takes no position.
  const int64_t longest = options.cache ? present.sum(1).max().item<int64_t>() : length;
  TORCH_CHECK_VALUE(longest <= config_.max_position_embeddings(), "the input has ", longest,
                    " tokens a sequence and the model ", config_.max_position_embeddings(),
                    " positions; shorten the input.");
  const OptPass pass = begin_pass(input_ids, present, options);

  const auto keep = [&](const at::Tensor& held) {
    if (!hidden_states) return;
    const at::Tensor all =
        pass.slices ? gather_from(held, 0, pass.slices->layout, group_, "hidden_states forward") : held;
    hidden_states->push_back(all.view({pass.batch, pass.tokens, -1}));
  };
  // The parameters that every rank holds whole and, in sequence parallelism, applies to its slice of the tokens.
  std::vector<at::Tensor> shared{embed_positions->weight, final_layer_norm ? final_layer_norm->weight : at::Tensor(),
                                 final_layer_norm ? final_layer_norm->bias : at::Tensor(),
                                 project_in ? project_in->weight : at::Tensor(),
                                 project_out ? project_out->weight : at::Tensor()};
  if (pass.slices) shared = copy_to(shared, group_, "model.decoder parameters");
  const at::Tensor &positions = shared[0], &norm_weight = shared[1], &norm_bias = shared[2];

  const at::Tensor ids = input_ids.flatten();
  at::Tensor x = embed_tokens(ids, pass.slices);  // [n, embedding_size]
  if (project_in) x = product(x, shared[3]);      // [n, D]
  const at::Tensor rows = OptLearnedPositionalEmbeddingImpl::rows(present).slice(1, length - pass.tokens).flatten();
  x = x + at::embedding(positions, rows.narrow(0, pass.first_token, x.size(0)));
  for (int64_t i = 0; i < config_.num_hidden_layers(); ++i) {
    keep(x);
    std::optional<DropoutSource> source = options.dropout;
    if (source) source->key = source->key.with(i);
    const auto layer = layers->ptr<OptDecoderLayerImpl>(i);
    OptPass layer_pass = pass;
    layer_pass.layer = i;
    const auto run = [layer, layer_pass, source](const at::Tensor& hidden) {
      return layer->forward(hidden, layer_pass, source);
    };
    x = options.activation_checkpointing ? checkpoint_activations(run, x, layer->parameters()) : run(x);
  }
  if (options.cache) options.cache->advance(pass.tokens);
  if (final_layer_norm) x = opt_layer_norm(x, norm_weight, norm_bias);
  if (project_out) x = product(x, shared[4]);
  keep(x);
  return x;
}

}  // namespace optp

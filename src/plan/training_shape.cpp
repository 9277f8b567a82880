#include "src/plan/training_shape.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace optp {

int64_t TrainingShape::part(int64_t dp, int64_t copy) const { return ShardLayout(batch_size, dp).range(copy).size; }

int64_t TrainingShape::rows(int64_t dp, int64_t copy) const {
  return micro_batch_size == 0 ? part(dp, copy) : std::min(micro_batch_size, part(dp, copy));
}

void TrainingShape::validate(const OptConfig& config, int64_t dp) const {
  TORCH_CHECK_VALUE(batch_size >= dp, "a batch of ", batch_size, " sequences cannot be shared by ", dp,
                    " copies of the model; use ", dp, " or more.");
  TORCH_CHECK_VALUE(micro_batch_size >= 0, "a micro-batch of ", micro_batch_size, " sequences is none; use 1 or more.");
  TORCH_CHECK_VALUE(seq_len >= 1 && seq_len <= config.max_position_embeddings(), "sequences of ", seq_len,
                    " tokens do not fit the model; use 1 to ", config.max_position_embeddings(), ".");
  // Far beyond any step, and small enough that no size overflows.
  TORCH_CHECK_VALUE(rows(dp, 0) <= (int64_t{1} << 30) / seq_len, "a micro-batch of ", rows(dp, 0), " x ", seq_len,
                    " tokens is not credible; use --micro-batch-size.");
}

LocalSizes local_sizes(OptForCausalLMImpl& model, const TrainingShape& shape, int64_t sequences) {
  const OptConfig& config = model.config();
  const ProcessGroup& group = model.mesh().tensor();
  const auto layer = model.decoder->layers->ptr<OptDecoderLayerImpl>(0);
  const auto own = [&](const ShardLayout& layout) { return layout.range(group.rank()).size; };
  LocalSizes sizes;
  sizes.tp = group.size();
  sizes.layers = config.num_hidden_layers();
  sizes.sequences = sequences;
  sizes.seq_len = shape.seq_len;
  sizes.tokens = sequences * shape.seq_len;
  sizes.held_tokens = sizes.largest_held = sizes.tokens;
  OptForwardOptions options;
  options.sequence_parallel = shape.sequence_parallel;
  options.activation_checkpointing = shape.activation_checkpointing;
  if (const auto slices = model.decoder->slices(sizes.tokens, options)) {
    sizes.held_tokens = own(slices->layout);
    sizes.largest_held = slices->layout.largest();
  }
  sizes.hidden = config.hidden_size();
  sizes.embedding = config.embedding_size();
  sizes.attention = own(layer->self_attn->out_proj->layout());
  sizes.heads = sizes.attention / config.head_dim();
  sizes.feed_forward = own(layer->fc2->layout());
  sizes.vocabulary = own(model.decoder->embed_tokens->layout());
  sizes.element = model.decoder->embed_tokens->weight.element_size();
  return sizes;
}

bool trained(const at::Tensor& parameter) { return parameter.defined() && parameter.requires_grad(); }

bool trained(const torch::nn::Module& module) {
  const std::vector<at::Tensor> parameters = module.parameters();
  return std::any_of(parameters.begin(), parameters.end(), [](const at::Tensor& p) { return p.requires_grad(); });
}

bool embeddings_trained(OptForCausalLMImpl& model) {
  OptDecoderImpl& decoder = *model.decoder;
  return trained(decoder.embed_tokens->weight) || trained(decoder.embed_positions->weight) ||
         (decoder.project_in && trained(*decoder.project_in));
}

int64_t first_reached_layer(OptForCausalLMImpl& model) {
  int64_t layer = 0;
  if (embeddings_trained(model)) return layer;
  const int64_t layers = model.config().num_hidden_layers();
  while (layer < layers && !trained(*model.decoder->layers->ptr(layer))) ++layer;
  return layer;
}

}  // namespace optp

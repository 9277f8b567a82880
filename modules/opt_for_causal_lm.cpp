#include "modules/opt_for_causal_lm.h"

#include <ATen/ATen.h>

#include <memory>

#include "parallel/mappings.h"
#include "parallel/product.h"
#include "parallel/vocab_parallel_cross_entropy.h"

namespace optp {

OptForCausalLMImpl::OptForCausalLMImpl(const OptConfig& config, const Mesh& mesh, at::ScalarType type)
    : config_(config), mesh_(mesh), tensor_options_(at::TensorOptions(type)) {
  config_.validate();
  TORCH_CHECK_VALUE(mesh.tensor().size() <= config.num_attention_heads(), "tp is ", mesh.tensor().size(),
                    ", but the model has ", config.num_attention_heads(),
                    " heads and each rank needs one; use a smaller tp.");
  OptForCausalLMImpl::reset();
}

void OptForCausalLMImpl::reset() {
  // "model" exists for the sake of its name in the parameters' paths.
  auto model = register_module("model", std::make_shared<torch::nn::Module>("OptModel"));
  decoder = OptDecoder(config_, mesh_.tensor(), tensor_options_);
  model->register_module("decoder", decoder.ptr());
  if (!config_.tie_word_embeddings()) {
    lm_head = register_module(
        "lm_head", ColumnParallelLinear(ColumnParallelLinearOptions(config_.embedding_size(), config_.vocab_size())
                                            .bias(false)
                                            .copy_input(false)
                                            .name("lm_head")
                                            .tensor_options(tensor_options_),
                                        mesh_.tensor()));
  }
}

OptOutput OptForCausalLMImpl::forward(const at::Tensor& input_ids, const OptForwardOptions& options) {
  const ProcessGroup& group = mesh_.tensor();
  const ShardLayout& vocabulary = decoder->embed_tokens->layout();
  OptOutput output;
  const at::Tensor hidden = decoder(input_ids, options.attention_mask, options.dropout,
                                    options.output_hidden_states ? &output.hidden_states : nullptr);
  const at::Tensor& weight = lm_head ? lm_head->weight : decoder->embed_tokens->weight;
  const at::Tensor logits = product(copy_to(hidden, group, "lm_head backward"), weight);  // [B, T, local V]

  if (options.labels.defined()) {
    TORCH_CHECK_VALUE(options.labels.sizes() == input_ids.sizes() && options.labels.scalar_type() == at::kLong,
                      "labels are ", options.labels.scalar_type(), " ", options.labels.sizes(), "; pass int64 ",
                      input_ids.sizes(), " as the input_ids.");
    TORCH_CHECK_VALUE(input_ids.size(1) > 1, "a sequence of one token has nothing to predict; pass two or more.");
    // Token t predicts token t + 1.
    const at::Tensor labels = options.labels.slice(1, 1).reshape(-1);
    const at::Tensor losses = vocab_parallel_cross_entropy(logits.slice(1, 0, -1).flatten(0, 1), labels, vocabulary,
                                                           group, /*ignore_index=*/-100, "loss forward");
    output.loss = losses.sum() / labels.ne(-100).sum();
  }
  output.logits = options.gather_logits ? gather_from(logits, -1, vocabulary, group, "lm_head forward") : logits;
  return output;
}

OptForCausalLM shard(const OptReference& reference, const Mesh& mesh) {
  const auto type = reference->named_parameters()["model.decoder.embed_tokens.weight"].scalar_type();
  OptForCausalLM model(reference->config(), mesh, type);
  copy_from_whole(named_shards(*model), *reference);
  return model;
}

}  // namespace optp

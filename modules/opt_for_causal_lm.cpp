#include "modules/opt_for_causal_lm.h"

#include <ATen/ATen.h>

#include <memory>

#include "parallel/mappings.h"
#include "parallel/product.h"
#include "parallel/vocab_parallel_cross_entropy.h"
#include "parallel/vocab_parallel_linear_cross_entropy.h"

namespace optp {
namespace {

constexpr int64_t kIgnored = -100;  // a target that does not count

// What each token is to predict, from the labels or targets of `options`; undefined without either.
at::Tensor targets_of(const at::Tensor& input_ids, const OptForwardOptions& options) {
  const bool shifted = options.labels.defined();
  if (!shifted && !options.targets.defined()) return {};
  TORCH_CHECK_VALUE(!shifted || !options.targets.defined(),
                    "labels and targets are two ways to say the same; pass one.");
  const at::Tensor& ids = shifted ? options.labels : options.targets;
  TORCH_CHECK_VALUE(ids.sizes() == input_ids.sizes() && ids.scalar_type() == at::kLong, shifted ? "labels" : "targets",
                    " are ", ids.scalar_type(), " ", ids.sizes(), "; pass int64 ", input_ids.sizes(),
                    " as the input_ids.");
  if (!shifted) return ids;
  TORCH_CHECK_VALUE(input_ids.size(1) > 1, "a sequence of one token has nothing to predict; pass two or more.");
  // Token t predicts token t + 1, and the last one nothing.
  return at::constant_pad_nd(ids.slice(1, 1), {0, 1}, kIgnored);
}

}  // namespace

OptForCausalLMImpl::OptForCausalLMImpl(const OptConfig& config, const Mesh& mesh,
                                       const at::TensorOptions& tensor_options)
    : config_(config), mesh_(mesh), tensor_options_(tensor_options) {
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
  const at::Tensor targets = targets_of(input_ids, options);  // [B, T] or undefined
  OptOutput output;
  at::Tensor hidden = decoder(input_ids, options, options.output_hidden_states ? &output.hidden_states : nullptr);
  if (options.last_token_only) {
    TORCH_CHECK_VALUE(!targets.defined() && !options.sequence_parallel,
                      "the last token's logits alone give no loss, and not with sequence parallelism; ask for all.");
    hidden = hidden.view({input_ids.size(0), input_ids.size(1), -1}).select(1, -1);  // [B, embedding_size]
  }
  const StoredWeight weight = lm_head ? lm_head->stored_weight() : decoder->embed_tokens->stored_weight();
  const auto slices = decoder->slices(input_ids.numel(), options);
  const at::Tensor head_input =  // [B T, embedding_size]
      slices ? all_gather_to(hidden, 0, slices->layout, group, "lm_head input", "lm_head backward")
             : copy_to(hidden, group, "lm_head backward");

  at::Tensor logits;  // [B T, local V]
  if (options.output_logits.value_or(!options.targets.defined())) {
    logits = product(head_input, weight);
    output.logits = logits.view({input_ids.size(0), options.last_token_only ? 1 : input_ids.size(1), -1});
    if (options.gather_logits) output.logits = gather_from(output.logits, -1, vocabulary, group, "lm_head forward");
  }
  if (targets.defined()) {
    const at::Tensor ids = targets.flatten();
    output.loss_sum =
        logits.defined()
            ? vocab_parallel_cross_entropy(logits, ids, vocabulary, group, kIgnored, "loss forward").sum()
            : vocab_parallel_linear_cross_entropy(head_input, weight, ids, vocabulary, group, kIgnored, "loss forward");
    output.loss_count = ids.ne(kIgnored).sum().item<int64_t>();
    output.loss = output.loss_sum / static_cast<double>(output.loss_count);
  }
  return output;
}

OptForCausalLM shard(const OptReference& reference, const Mesh& mesh) {
  const auto type = reference->named_parameters()["model.decoder.embed_tokens.weight"].scalar_type();
  OptForCausalLM model(reference->config(), mesh, type);
  copy_from_whole(named_shards(*model), *reference);
  return model;
}

}  // namespace optp

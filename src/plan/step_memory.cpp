#include "src/plan/step_memory.h"

#include "parallel/vocab_parallel_linear_cross_entropy.h"
#include "src/plan/layer_memory.h"

namespace optp {
namespace {

// Forward and backward of the whole model, operation by operation (modules/opt_decoder.cpp, opt_for_causal_lm.cpp).
class ModelMemory {
 public:
  ModelMemory(OptForCausalLMImpl& model, const LocalSizes& sizes, bool checkpointing, bool accumulates)
      : model_(model),
        config_(model.config()),
        sizes_(sizes),
        checkpointing_(checkpointing),
        reached_(first_reached_layer(model)),
        memory_(sizes, accumulates),
        meter_(memory_.meter),
        layer_(memory_, config_, sizes, checkpointing),
        held_(memory_.held(sizes.hidden)),
        embedded_(memory_.held(sizes.embedding)),
        whole_embedded_(memory_.whole(sizes.embedding)),
        statistics_(2 * sizes.held_tokens * memory_.wide()),
        table_(sizes.vocabulary * sizes.embedding * sizes.element),
        positions_((config_.max_position_embeddings() + 2) * sizes.hidden * sizes.element),
        projection_(sizes.hidden * sizes.embedding * sizes.element) {}

  int64_t peak() {
    embed();
    for (int64_t i = 0; i < sizes_.layers; ++i) {
      layer_.forward(!checkpointing_ && i >= reached_);
      if (i < reached_) meter_.give(held_);
    }
    finish_decoder();
    loss();
    if (!hidden_wanted()) return meter_.peak();
    head_backward();
    for (int64_t i = reached_; i < sizes_.layers; ++i) layer_backward();
    if (embeddings_trained(model_)) embed_backward();
    return meter_.peak();
  }

 private:
  void embed() {
    meter_.take(2 * sizes_.tokens * static_cast<int64_t>(sizeof(int64_t)));  // rows of the two tables
    meter_.take(whole_embedded_);
    if (sizes_.tp > 1) meter_.pass(whole_embedded_);  // words of other ranks are cleared
    if (sizes_.sliced()) {
      memory_.reduce_scatter(sizes_.embedding);
      meter_.give(whole_embedded_);
    } else {
      memory_.all_reduce(whole_embedded_);
    }
    if (config_.has_projections()) meter_.take(held_);  // project_in keeps its input
    meter_.take(2 * held_);                             // positions, and the sum with them
    meter_.give(2 * held_);
  }

  // The last layer's output stays if a norm or a projection follows, as its input.
  void finish_decoder() {
    if (config_.has_final_layer_norm()) meter_.take(held_ + statistics_);
    if (config_.has_projections()) meter_.take(embedded_);
  }

  // vocab_parallel_linear_cross_entropy.h: the logits of a chunk, while the gradients of the head and of its input
  // grow.
  void loss() {
    const bool narrow = sizes_.element < memory_.wide();
    if (sizes_.sliced()) memory_.all_gather(sizes_.embedding);
    const int64_t chunk = std::min(kLossChunk, sizes_.tokens) * sizes_.vocabulary;
    const int64_t logits = chunk * (sizes_.element + (narrow ? memory_.wide() : 0));
    meter_.take((hidden_wanted() ? whole_embedded_ : 0) + head_gradient() + logits);
    if (narrow && head_trained()) meter_.pass(table_ + head_gradient());  // a chunk's share, and that widened
    meter_.give(logits);
    if (sizes_.sliced()) meter_.give(whole_embedded_);
    meter_.give(config_.has_projections() ? embedded_ : held_);  // the decoder's output
  }

  // From the loss to the gradient of the last layer's output.
  void head_backward() {
    if (head_trained()) {
      if (sizes_.element < memory_.wide()) {
        meter_.take(table_);
        meter_.give(head_gradient());
      }
      // The gradient of a tied table waits for that of the embeddings, to which it is added.
      if (!config_.tie_word_embeddings()) memory_.accumulate(table_);
    }
    if (sizes_.sliced()) {
      memory_.reduce_scatter(sizes_.embedding);
      meter_.give(whole_embedded_);
    } else {
      memory_.copy_to_backward(sizes_.embedding);
    }
    if (config_.has_projections()) {
      meter_.take(held_ + projection_);
      meter_.give(embedded_);
      if (config_.has_final_layer_norm()) meter_.give(held_);
      leave_shared(projection_);
    }
    if (config_.has_final_layer_norm()) {
      meter_.pass(held_);
      meter_.give(statistics_);
    }
    if (config_.has_projections() || config_.has_final_layer_norm()) meter_.give(held_);  // the last layer's output
  }

  // From the gradient of a layer's output to that of its input, which nothing needs any more.
  void layer_backward() {
    if (checkpointing_) {
      layer_.forward(true);
      layer_.backward(true);
      meter_.give(2 * held_);  // the output once more, and its gradient
    } else {
      layer_.backward(false);
    }
    meter_.give(held_);
  }

  void embed_backward() {
    meter_.take(positions_);
    leave_shared(positions_);
    if (config_.has_projections()) {
      meter_.take(embedded_ + projection_);
      meter_.give(held_ + embedded_);  // the gradient, and project_in's input
      leave_shared(projection_);
    }
    if (sizes_.sliced()) {
      memory_.all_gather(sizes_.embedding);
      meter_.give(embedded_);
    }
    if (sizes_.tp > 1) meter_.pass(whole_embedded_);
    if (trained(model_.decoder->embed_tokens->weight)) {
      meter_.take(table_);
      if (config_.tie_word_embeddings()) meter_.give(table_);
      memory_.accumulate(table_);
    }
    meter_.give(whole_embedded_);
    if (sizes_.sliced()) {  // what every rank has a part of, added over the ranks in one piece
      meter_.take(shared_);
      memory_.all_reduce(shared_);
    }
  }

  // The gradient of a parameter that every rank applies to its own tokens waits for the others of that kind.
  void leave_shared(int64_t bytes) {
    if (sizes_.sliced()) {
      shared_ += bytes;
    } else {
      memory_.accumulate(bytes);
    }
  }

  bool head_trained() const {
    return trained(model_.lm_head ? model_.lm_head->weight : model_.decoder->embed_tokens->weight);
  }
  // Whether the decoder's output needs a gradient.
  bool hidden_wanted() const {
    const auto wanted = [](const auto& module) { return module && trained(*module); };
    return reached_ < sizes_.layers || wanted(model_.decoder->final_layer_norm) || wanted(model_.decoder->project_out);
  }
  // Of the head's weight, summed over the chunks.
  int64_t head_gradient() const { return head_trained() ? sizes_.vocabulary * sizes_.embedding * memory_.wide() : 0; }

  OptForCausalLMImpl& model_;
  const OptConfig& config_;
  const LocalSizes& sizes_;
  bool checkpointing_;
  int64_t reached_;  // the first layer that backward goes through
  StepMemory memory_;
  MemoryMeter& meter_;
  LayerMemory layer_;
  // Bytes of [held tokens, D], [held or all tokens, embedding size], a norm's statistics, and of the weights'
  // gradients.
  int64_t held_, embedded_, whole_embedded_, statistics_, table_, positions_, projection_;
  int64_t shared_ = 0;
};

}  // namespace

int64_t activation_peak_bytes(OptForCausalLMImpl& model, const LocalSizes& sizes, bool activation_checkpointing,
                              bool accumulates) {
  return ModelMemory(model, sizes, activation_checkpointing, accumulates).peak();
}

}  // namespace optp

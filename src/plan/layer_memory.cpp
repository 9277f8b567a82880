#include "src/plan/layer_memory.h"

namespace optp {

void StepMemory::all_reduce(int64_t bytes) {
  if (sizes_.tp > 1 && sizes_.element < wide()) meter.pass(bytes / sizes_.element * wide());
}

void StepMemory::all_gather(int64_t width) {
  // Gloo gathers equal parts; uneven ones are padded before and put together after.
  const int64_t part = sizes_.largest_held * width * sizes_.element;
  if (part * sizes_.tp == whole(width)) return meter.take(whole(width));
  const int64_t padded = part == held(width) ? 0 : part;
  meter.take(padded + part * sizes_.tp);
  meter.give(padded);
  meter.take(whole(width));
  meter.give(part * sizes_.tp);
}

void StepMemory::reduce_scatter(int64_t width) {
  meter.take(sizes_.tp * held(width));  // what the others send
  meter.take(held(width));
  meter.give(sizes_.tp * held(width));
}

void StepMemory::copy_to_backward(int64_t width) {
  if (sizes_.tp == 1) return;
  meter.take(whole(width));
  all_reduce(whole(width));
  meter.give(whole(width));
}

void StepMemory::accumulate(int64_t bytes) {
  if (accumulates_ && sizes_.element < wide()) meter.pass(bytes / sizes_.element * wide());
  meter.give(bytes);
}

LayerMemory::LayerMemory(StepMemory& memory, const OptConfig& config, const LocalSizes& sizes,
                         bool activation_checkpointing)
    : memory_(memory),
      meter_(memory.meter),
      sizes_(sizes),
      before_(config.do_layer_norm_before()),
      gelu_(config.activation_function() == "gelu"),
      drops_(config.dropout() > 0),
      explicit_(config.attention_dropout() > 0),
      keeps_whole_(activation_checkpointing && sizes.sliced()),
      held_(memory.held(sizes.hidden)),
      whole_(memory.whole(sizes.hidden)),
      attention_(memory.whole(sizes.attention)),
      feed_forward_(memory.whole(sizes.feed_forward)),
      statistics_(2 * sizes.held_tokens * memory.wide()),
      attended_(attention_ + (explicit_ ? 0 : sizes.sequences * sizes.heads * sizes.seq_len * memory.wide())),
      attention_weight_(sizes.attention * sizes.hidden * sizes.element),
      feed_forward_weight_(sizes.feed_forward * sizes.hidden * sizes.element) {}

void LayerMemory::forward(bool keeps) {
  const bool keeps_slices = keeps && !keeps_whole_;
  if (before_) meter_.take(held_ + statistics_);
  attention_forward(keeps);
  if (before_ && !keeps_slices) meter_.give(held_);
  add_residual();
  // Before: the sum stays, the norm's input. After: the norm's output takes its place.
  meter_.take(held_ + statistics_);
  if (!before_ && !keeps) meter_.give(held_);

  enter();
  meter_.take(feed_forward_);  // fc1's output
  leave_whole(keeps);
  meter_.take(feed_forward_);  // and behind the activation
  leave();
  add_residual();
  meter_.give(held_);  // fc2's output
  if (!before_) {
    meter_.take(held_ + statistics_);
    if (!keeps) meter_.give(held_);
  }

  // The end of the function: attention's output, and what nothing kept.
  meter_.give(held_);
  if (!keeps || !gelu_) meter_.give(feed_forward_);
  if (!keeps) meter_.give(feed_forward_ + 2 * statistics_);
  if (!keeps_slices) meter_.give(held_);  // fc1's input
  if (!keeps && before_) meter_.give(held_);
}

void LayerMemory::attention_forward(bool keeps) {
  enter();
  meter_.take(3 * attention_);
  leave_whole(keeps);
  meter_.take(attended_);
  if (explicit_) meter_.pass(explicit_attention_bytes(false));
  leave();
  if (!keeps) meter_.give(3 * attention_ + attended_);
}

// What a column-parallel layer multiplies: all tokens.
void LayerMemory::enter() {
  if (sizes_.sliced()) memory_.all_gather(sizes_.hidden);
}
void LayerMemory::leave_whole(bool keeps) {
  if (sizes_.sliced() && !(keeps && keeps_whole_)) meter_.give(whole_);
}

// A row-parallel layer: a partial sum of all tokens, and of it what this rank holds.
void LayerMemory::leave() {
  meter_.take(whole_);
  if (!sizes_.sliced()) return memory_.all_reduce(whole_);
  memory_.reduce_scatter(sizes_.hidden);
  meter_.give(whole_);
}

void LayerMemory::add_residual() {
  if (drops_) meter_.take(held_);
  meter_.take(held_);
  if (drops_) meter_.give(held_);
}

void LayerMemory::backward(bool shared) {
  if (!before_) {
    meter_.take(held_);
    meter_.give((shared ? 0 : held_) + held_ + statistics_);  // the gradient and the norm's input
  }
  leave_backward(feed_forward_, feed_forward_weight_);
  if (gelu_) meter_.give(feed_forward_);
  meter_.take(feed_forward_);
  meter_.give(2 * feed_forward_);  // the gradient, and what the activation kept
  enter_backward(1, feed_forward_, feed_forward_weight_);
  if (!keeps_whole_) meter_.give(held_);
  if (before_) {
    meter_.pass(held_);
    meter_.give(held_ + statistics_);  // the norm's input
    // The gradient of the residual stream is the sum, in the memory of the incoming one if nobody else has that.
    if (shared) meter_.take(held_);
    meter_.give(held_);
  } else {
    meter_.give(held_);
    meter_.pass(held_);
    meter_.give(held_ + statistics_);
  }

  leave_backward(attention_, attention_weight_);
  meter_.take(3 * attention_);
  if (explicit_) meter_.pass(explicit_attention_bytes(true));
  meter_.give(attention_ + 3 * attention_ + attended_);  // the gradient; q, k, v and the result
  meter_.pass(attention_);                               // q's scaling
  enter_backward(3, attention_, attention_weight_);
  if (before_) {
    if (!keeps_whole_) meter_.give(held_);
    meter_.pass(held_);
    meter_.give(statistics_);
  }
  meter_.give(held_);
}

// From the gradient of a row-parallel layer's output to that of its input, `local` bytes.
void LayerMemory::leave_backward(int64_t local, int64_t weight) {
  if (drops_) meter_.take(held_);
  if (sizes_.sliced()) {
    memory_.all_gather(sizes_.hidden);
    if (drops_) meter_.give(held_);
  }
  meter_.take(local + weight);
  if (sizes_.sliced()) {
    meter_.give(whole_);
  } else if (drops_) {
    meter_.give(held_);
  }
  memory_.accumulate(weight);
}

// From the gradients of column-parallel products of one input, `local` bytes each, to the input's.
void LayerMemory::enter_backward(int64_t products, int64_t local, int64_t weight) {
  if (!sizes_.sliced()) {
    for (int64_t i = 0; i < products; ++i) {
      meter_.take(whole_ + weight);
      memory_.accumulate(weight);
      meter_.give(local + (i > 0 ? whole_ : 0));
    }
    return memory_.copy_to_backward(sizes_.hidden);
  }
  if (!keeps_whole_) memory_.all_gather(sizes_.hidden);
  for (int64_t i = 0; i < products; ++i) {
    meter_.take(whole_);
    if (i > 0) meter_.give(whole_);
    meter_.take(weight);
  }
  memory_.reduce_scatter(sizes_.hidden);
  meter_.give(products * local + 2 * whole_);
  for (int64_t i = 0; i < products; ++i) memory_.accumulate(weight);
}

// Scores and probabilities of a few heads at a time (modules/explicit_attention.cpp).
int64_t LayerMemory::explicit_attention_bytes(bool backward) const {
  constexpr int64_t kScores = int64_t{1} << 23;
  const int64_t square = sizes_.seq_len * sizes_.seq_len;
  const int64_t heads = std::clamp<int64_t>(kScores / square, 1, sizes_.heads);
  const int64_t wide = memory_.wide();
  const int64_t copy = sizes_.element < wide ? wide : 0;  // a 16-bit operand as float32
  // Forward: the scores and their softmax. Backward: the probabilities, the gradient of the dropped ones and its
  // dropout; the scores' gradient is no larger.
  const int64_t a_score = backward ? wide + sizes_.element + copy + wide : sizes_.element + copy + wide;
  return heads * square * a_score + square;  // and where the future is
}

}  // namespace optp

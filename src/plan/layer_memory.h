// The tensors that a decoder layer makes, keeps and drops in forward and backward, in the order in which it does so.
#pragma once

#include <algorithm>
#include <cstdint>

#include "modules/opt_config.h"
#include "src/plan/training_shape.h"

namespace optp {

/// Bytes that are alive, and the most that ever were.
class MemoryMeter {
 public:
  void take(int64_t bytes) {
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  void give(int64_t bytes) { now_ -= bytes; }
  /// Alive during one operation.
  void pass(int64_t bytes) {
    take(bytes);
    give(bytes);
  }
  int64_t peak() const { return peak_; }

 private:
  int64_t now_ = 0, peak_ = 0;
};

/// What the collectives and the accumulation of gradients need beside their operands (parallel/process_group.cpp,
/// parallel/gradients.cpp). Widths are numbers a token.
class StepMemory {
 public:
  StepMemory(const LocalSizes& sizes, bool accumulates) : sizes_(sizes), accumulates_(accumulates) {}

  int64_t held(int64_t width) const { return sizes_.held_tokens * width * sizes_.element; }
  int64_t whole(int64_t width) const { return sizes_.tokens * width * sizes_.element; }
  int64_t wide() const { return std::max<int64_t>(sizes_.element, sizeof(float)); }  ///< bytes of a statistic

  /// 16-bit numbers are added in a float32 copy.
  void all_reduce(int64_t bytes);
  /// Takes whole(width).
  void all_gather(int64_t width);
  /// Takes held(width); the whole stays.
  void reduce_scatter(int64_t width);
  /// Copies a gradient [tokens, width] that is alive, adds it over the ranks and drops the original. Nothing in a group
  /// of one.
  void copy_to_backward(int64_t width);
  /// Drops the gradient of a weight, which goes to its buffer. 16-bit gradients that are added to what is there are
  /// widened first.
  void accumulate(int64_t bytes);

  MemoryMeter meter;

 private:
  const LocalSizes& sizes_;
  bool accumulates_;
};

/// One decoder layer (modules/opt_decoder_layer.cpp, modules/opt_attention.cpp). Its input, held(hidden), is the
/// caller's: alive before and after.
class LayerMemory {
 public:
  LayerMemory(StepMemory& memory, const OptConfig& config, const LocalSizes& sizes, bool activation_checkpointing);

  /// Takes the output and, if it `keeps` what backward needs, that.
  void forward(bool keeps);
  /// Gives what forward kept, and turns the output's gradient, held(hidden), into the input's. A gradient that is
  /// `shared` is still alive afterwards.
  void backward(bool shared);

 private:
  void attention_forward(bool keeps);
  void enter();
  void leave_whole(bool keeps);
  void leave();
  void add_residual();
  void leave_backward(int64_t local, int64_t weight);
  void enter_backward(int64_t products, int64_t local, int64_t weight);
  int64_t explicit_attention_bytes(bool backward) const;

  StepMemory& memory_;
  MemoryMeter& meter_;
  const LocalSizes& sizes_;
  bool before_;  // the layer norms come before attention and feed-forward
  bool gelu_;
  bool drops_;        // dropout after attention and feed-forward
  bool explicit_;     // attention drops probabilities, which are spelt out
  bool keeps_whole_;  // products keep the gathered input in place of the slice
  // Bytes of [held or all tokens, D], [tokens, H K], [tokens, local F], a norm's statistics, attention's result and
  // what comes with it, and the weights' gradients.
  int64_t held_, whole_, attention_, feed_forward_, statistics_, attended_, attention_weight_, feed_forward_weight_;
};

}  // namespace optp

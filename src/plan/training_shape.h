// The shape of a training step, and what it makes of a model on one rank.
#pragma once

#include <cstdint>

#include "modules/opt_config.h"
#include "modules/opt_for_causal_lm.h"

namespace optp {

struct TrainingShape {
  int64_t batch_size = 1;        ///< sequences in an optimizer step, over all copies of the model
  int64_t micro_batch_size = 0;  ///< sequences that a copy takes at once; 0: its whole part of the batch
  int64_t seq_len = 1;
  bool sequence_parallel = false;
  bool activation_checkpointing = false;

  /// Sequences of copy `copy` of `dp`, and those that it takes at once; the first copy has no fewer than others.
  int64_t part(int64_t dp, int64_t copy) const;
  int64_t rows(int64_t dp, int64_t copy) const;
  /// Throws c10::ValueError unless the step fits the model and can be shared by `dp` copies.
  void validate(const OptConfig& config, int64_t dp) const;
};

/// Sizes that memory and communication of a forward and backward pass follow from.
struct LocalSizes {
  int64_t tp = 1;
  int64_t layers = 0;
  int64_t sequences = 0, seq_len = 0;
  int64_t tokens = 0;        ///< of the micro-batch: sequences * seq_len
  int64_t held_tokens = 0;   ///< of those, between the tensor-parallel layers; fewer with sequence parallelism
  int64_t largest_held = 0;  ///< the same on the rank that holds most
  int64_t hidden = 0, embedding = 0;
  int64_t heads = 0, attention = 0;  ///< heads here, and their features together
  int64_t feed_forward = 0, vocabulary = 0;
  int64_t element = 4;  ///< bytes of an activation
  bool sliced() const { return held_tokens < tokens; }
};

/// Of `model`, built for its rank (on any device), and a forward pass over `sequences` sequences of that shape.
LocalSizes local_sizes(OptForCausalLMImpl& model, const TrainingShape& shape, int64_t sequences);

/// Whether a gradient of the parameter, or of any of the module's parameters, is wanted. Undefined: no.
bool trained(const at::Tensor& parameter);
bool trained(const torch::nn::Module& module);
/// Whether the embeddings' output needs a gradient, and the first layer that backward goes through; the number of
/// layers if it goes through none.
bool embeddings_trained(OptForCausalLMImpl& model);
int64_t first_reached_layer(OptForCausalLMImpl& model);

}  // namespace optp

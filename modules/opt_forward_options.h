// What a forward pass of OPT is asked for, and what its layers share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "parallel/random.h"
#include "parallel/sequence_parallel.h"

namespace optp {

class KvCache;

/// Where dropout takes its numbers from. Absent: no dropout, whatever the configuration says.
struct DropoutSource {
  RandomKey key;               ///< of this step (and, inside the decoder, of the layer)
  int64_t first_sequence = 0;  ///< global index of the batch's first sequence
};

/// What a forward pass is asked for, besides the ids.
struct OptForwardOptions {
  at::Tensor attention_mask;          ///< [B, T] int64 of 0 and 1; undefined: no padding
  at::Tensor labels;                  ///< [B, T] int64 as transformers takes them: the input_ids, -100 leaves one out
  at::Tensor targets;                 ///< [B, T] int64: the id that follows each token, -100 leaves a position out
  std::optional<bool> output_logits;  ///< absent: unless `targets` are given
  bool gather_logits = true;          ///< false: logits of this rank's range of the vocabulary only
  bool output_hidden_states = false;  ///< as transformers' option of that name
  std::optional<DropoutSource> dropout;  ///< absent: no dropout
  /// Each rank holds a slice of the tokens between the tensor-parallel layers: less memory, the same numbers but for
  /// rounding. A batch with fewer tokens than ranks is not sliced.
  bool sequence_parallel = false;
  /// Each layer keeps its input alone and runs again in backward: less memory, more time, the same bits.
  bool activation_checkpointing = false;
  /// Keys and values of the tokens before input_ids, to which those of input_ids are added; attention_mask then covers
  /// both, [B, length + T]. For inference only, and not with sequence_parallel.
  KvCache* cache = nullptr;
  bool last_token_only = false;  ///< logits of each sequence's last token alone, [B, 1, V]
};

/// Which keys a query may see, besides that none sees the future.
struct AttentionMask {
  at::Tensor additive;  ///< [B, 1, T, L], L keys with those of the cache, added to the scores; undefined: no padding,
                        ///< causality alone
  bool has_empty_rows = false;  ///< some query sees no key at all: the sequence begins with padding
};

/// What is the same for all layers of one pass. Between the tensor-parallel layers activations are [n, D]: the n = B T
/// tokens of all sequences, one sequence after another, or this rank's slice of them.
struct OptPass {
  int64_t batch = 0;   ///< B
  int64_t tokens = 0;  ///< T
  AttentionMask mask;
  std::optional<TokenSlices> slices;  ///< absent: every rank holds all tokens
  int64_t first_token = 0;            ///< of those held here, counted over the whole batch
  KvCache* cache = nullptr;           ///< as in OptForwardOptions
  int64_t layer = 0;                  ///< the one that runs
  bool differentiable = false;        ///< gradients are wanted; also true while a checkpointed layer first runs without
};

}  // namespace optp

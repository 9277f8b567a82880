// Dropout whose mask is the same at every degree of parallelism.
//
// A mask depends on a key and on global indices alone, not on how sequences, heads and tokens are dealt out to ranks.
// It is drawn again for backward instead of being kept: dropout keeps nothing at all.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/random.h"

namespace optp {

/// Zeroes each element of `input` [B, ..] with probability `p` and divides the others by 1 - p. Sequence b draws from
/// key.with(first_sequence + b). p = 0 returns the input.
at::Tensor keyed_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence);

/// The same for `input` [B, H, ..]: head h of a sequence has a stream of its own, key.with(sequence).with(first_head +
/// h).
at::Tensor keyed_head_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence,
                              int64_t first_head);

/// Consecutive tokens of a batch of sequences that are `tokens` long each, the sequences one after another.
struct TokenRange {
  int64_t first_sequence = 0;  ///< global index of the batch's first sequence
  int64_t tokens = 1;          ///< of a sequence
  int64_t start = 0;           ///< the first token meant, counted from the batch's first
};

/// The same for `input` [n, ..], the tokens from range.start on: what keyed_dropout(whole [B, T, ..]) gives them.
at::Tensor keyed_token_dropout(const at::Tensor& input, double p, const RandomKey& key, const TokenRange& range);

}  // namespace optp

// Dropout whose mask is the same at every degree of parallelism.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/random.h"

namespace optp {

/// Zeroes each element of `input` with probability `p` and divides the others by 1 - p.
///
///   input  [B, ..] or, with `heads`, [B, H, ..]
///
/// Sequence b draws from key.with(first_sequence + b), and head h of it from a stream of its own, .with(first_head +
/// h): the mask depends on global indices alone, not on how sequences and heads are dealt out to ranks. p = 0 returns
/// the input.
at::Tensor keyed_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence);
at::Tensor keyed_head_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence,
                              int64_t first_head);

}  // namespace optp

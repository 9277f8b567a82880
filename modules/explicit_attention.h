// Attention with its probabilities spelt out: slower than LibTorch's fused kernel, and able to do what that cannot.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "modules/opt_forward_options.h"

namespace optp {

/// Which probabilities are dropped: head h of sequence b of the batch draws as keyed_head_dropout says.
struct AttentionDropout {
  double p;
  RandomKey key;  ///< of the layer's attention
  int64_t first_sequence;
  int64_t first_head;  ///< of those held here
};

/// softmax(q k^T) v with q, k, v [B, H, T, K] -> [B, H, T, K]; q is scaled already. Statistics are float32 (float64 for
/// float64 operands).
///
/// Besides what the fused kernel does it puts a keyed mask on the probabilities, and a query that sees no key (all of
/// its scores are filled alike) has the gradient of uniform probabilities. The probabilities, [H, T, T] a sequence,
/// exist for a few heads at a time, are not kept, and are computed again in backward.
at::Tensor explicit_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const AttentionMask& mask, const std::optional<AttentionDropout>& dropout);

}  // namespace optp

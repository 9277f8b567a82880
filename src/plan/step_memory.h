// How much memory the tensors of a forward and backward pass take beside parameters, gradients and optimizer state.
#pragma once

#include <cstdint>

#include "modules/opt_config.h"
#include "src/plan/training_shape.h"

namespace optp {

/// The most bytes of activations that are alive at once, counted operation by operation from what modules/ computes and
/// what autograd keeps of it. Of the moments that can be the largest (the last layer's forward, the loss, the first
/// steps of backward, its end) it takes the largest. Without padding; a padding mask adds [B, 1, T, T].
///
/// Left out: what products and allocators need inside, and tensors of a few numbers a token.
int64_t activation_peak_bytes(const OptConfig& config, const LocalSizes& sizes, bool activation_checkpointing);

}  // namespace optp

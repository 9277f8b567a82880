// How much memory the tensors of a forward and backward pass take beside parameters, gradients and optimizer state.
#pragma once

#include <cstdint>

#include "modules/opt_for_causal_lm.h"
#include "src/plan/training_shape.h"

namespace optp {

/// The most bytes of activations and gradients in flight that are alive at once, followed operation by operation
/// through what modules/ and parallel/ compute and what autograd keeps of it. Without padding; a padding mask adds [B,
/// 1, T, T]. `accumulates`: a step has several micro-batches, whose gradients are added up. Where backward does not
/// come by for the sake of frozen parameters nothing is kept; frozen ones on its way count as if they were trained.
///
/// Left out: what products, attention and allocators need inside, and tensors of a few numbers a token.
int64_t activation_peak_bytes(OptForCausalLMImpl& model, const LocalSizes& sizes, bool activation_checkpointing,
                              bool accumulates);

}  // namespace optp

// Activation checkpointing: memory for time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace optp {

/// `body(input)`, of which nothing but `input` is kept for backward: backward runs `body` again, with gradients, and
/// then backward through it. (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.)
///
/// `body` must compute the same thing both times: what is random in it has to be keyed (parallel/dropout.h). Its
/// collectives run twice, the second time in the middle of backward, in the same order on all ranks. `parameters` are
/// the tensors besides `input` that `body` computes with and that may need a gradient; the result needs one if any of
/// them does. Gradients have the bits that they have without checkpointing.
///
/// The gradients of the parameters are added to their grad() by backward(). torch::autograd::grad() would not see
/// them, so it is a c10::Error. No gradients of gradients.
at::Tensor checkpoint_activations(std::function<at::Tensor(const at::Tensor&)> body, const at::Tensor& input,
                                  at::TensorList parameters);

}  // namespace optp

// RMSprop's update, for which LibTorch has no fused kernel.
#pragma once

#include <ATen/core/Tensor.h>

namespace optp {

struct RmspropStep {
  double lr;
  double alpha;
  double eps;
  double weight_decay;
  double momentum;
};

/// One step of torch.optim.RMSprop in one pass over the memory, in parallel. All tensors are contiguous, of one shape
/// and dtype, float32 or float64. `square_avg` and, unless undefined (not centered; no momentum), `grad_avg` and
/// `momentum_buffer` are the state; zeros before the first step.
///
///   g          = gradient + weight_decay * parameter
///   square_avg = alpha * square_avg + (1 - alpha) * g^2
///   grad_avg   = alpha * grad_avg + (1 - alpha) * g                            (centered)
///   d          = g / (sqrt(square_avg - grad_avg^2) + eps)                     (without grad_avg^2 unless centered)
///   d          = momentum_buffer = momentum * momentum_buffer + d              (with momentum)
///   parameter -= lr * d
///
/// Where rounding makes square_avg - grad_avg^2 negative, it is taken as 0 (torch.optim's result there is NaN).
void rmsprop_step_(const at::Tensor& parameter, const at::Tensor& gradient, const at::Tensor& square_avg,
                   const at::Tensor& grad_avg, const at::Tensor& momentum_buffer, const RmspropStep& step);

}  // namespace optp

// The sum of squares that the global norm is made of.
#pragma once

#include <ATen/core/Tensor.h>

namespace optp {

/// The sum of the squares of `tensor` (contiguous, float32 or float64), taken in float64, so that float32 neither
/// overflows nor rounds. One pass over the memory, in parallel; the order of the sum does not depend on the number of
/// threads. Not finite exactly when an element is not (or, in float64, when a square is too large).
double square_sum(const at::Tensor& tensor);

}  // namespace optp

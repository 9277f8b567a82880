// The matrix product of the sharded layers: the one place where another product library or a fixed summation order can
// be put in without touching a layer.
#pragma once

#include <ATen/core/Tensor.h>

namespace optp {

/// input [..., K] times weight [N, K] transposed, plus bias [N] if it is defined -> [..., N].
at::Tensor product(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace optp

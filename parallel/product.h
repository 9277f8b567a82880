// The matrix products of the sharded layers: the one place where another product library or a fixed summation order can
// be put in without touching a layer.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/stored_weight.h"

namespace optp {

/// input [..., K] times weight [N, K] transposed, plus bias [N] if it is defined -> [..., N], in the input's type.
/// A weight that is narrower than a float32 input is widened on the way. Such a product has no gradient: it is a
/// c10::ValueError where one is wanted. Under c10::InferenceMode a few rows take few_rows_product. Large float32
/// products are formed by the library that set_product_library chose.
at::Tensor product(const at::Tensor& input, const StoredWeight& weight, const at::Tensor& bias = {});

// The same product and its two gradients as plain arithmetic, for operations with a backward of their own: matrices
// that autograd does not follow. `out` is overwritten.

/// out [M, N] = input [M, K] times weight [N, K] transposed.
void product_out(at::Tensor out, const at::Tensor& input, const StoredWeight& weight);

/// out [M, K] = gradient [M, N] times weight [N, K].
void product_input_gradient_out(at::Tensor out, const at::Tensor& gradient, const at::Tensor& weight);

/// gradient [M, N] transposed times input [M, K] -> [N, K].
at::Tensor product_weight_gradient(const at::Tensor& gradient, const at::Tensor& input);

/// Adds it to `sum` [N, K], which may be float32 when the operands have 16 bits.
void add_product_weight_gradient_(const at::Tensor& sum, const at::Tensor& gradient, const at::Tensor& input);

}  // namespace optp

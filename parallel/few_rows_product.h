// The matrix product of decoding: a few rows of activations and a weight that is read once.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/stored_weight.h"

namespace optp {

/// Rows up to which few_rows_product is the fastest way: beyond, a general matrix product wins.
inline constexpr int64_t kFewRows = 32;

/// Whether few_rows_product can form this product here: float32 input [M, K] with M <= kFewRows, values in float32,
/// bfloat16 or int8, and a CPU that it knows (x86 with AVX2 and FMA).
bool few_rows_product_serves(const at::Tensor& input, const StoredWeight& weight);

/// out [M, N] = input [M, K] times W [N, K] transposed, plus bias [N] if it is defined; all contiguous, W as it is
/// stored. Time goes into reading W, which is read once however many rows there are; its values are widened in
/// registers. Sums are float32 in eight lanes, in an order that depends on K alone: a row's result depends neither on
/// the rows beside it nor on the number of threads. No gradient.
void few_rows_product(const at::Tensor& out, const at::Tensor& input, const StoredWeight& weight,
                      const at::Tensor& bias);

}  // namespace optp

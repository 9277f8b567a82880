// Tensors of small integers, on which sums and products are exact in every type, and their comparison bit for bit.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace optp::testing {

/// Element i, in row-major order, is (7 i + 3 (i / 11) + start) mod 11 - 5: both signs, and no row equals the next one,
/// so that a shifted range or a transposition shows.
inline at::Tensor integers(at::IntArrayRef sizes, int64_t start = 0, at::ScalarType type = at::kDouble) {
  const at::Tensor i = at::arange(c10::multiply_integers(sizes), at::kLong);
  return (i * 7 + i.floor_divide(11) * 3 + start).remainder(11).sub(5).view(sizes).to(type);
}

/// Same type, shape and numbers.
inline ::testing::AssertionResult same(const at::Tensor& actual, const at::Tensor& expected) {
  if (!actual.defined() || !expected.defined()) return ::testing::AssertionFailure() << "undefined tensor";
  if (actual.scalar_type() == expected.scalar_type() && actual.equal(expected)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "actual " << actual << "\nexpected " << expected;
}

/// Same shape, and no element further than `tolerance` from the expected one.
inline ::testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  if (actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure() << "shape " << actual.sizes() << ", expected " << expected.sizes();
  }
  const double difference = (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  if (difference <= tolerance) return ::testing::AssertionSuccess();  // false for NaN
  return ::testing::AssertionFailure() << "largest difference " << difference << ", allowed " << tolerance;
}

}  // namespace optp::testing

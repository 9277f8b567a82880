// How far two tensors are apart, and what all ranks together say about it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "parallel/process_group.h"

namespace optp {

/// The largest differences over everything that was added.
struct Difference {
  double max_abs = 0;       ///< largest |actual - expected|; infinite once a NaN or infinity was met
  double max_expected = 0;  ///< largest |expected|

  /// Both tensors have the same shape; an undefined `actual` counts as infinitely far.
  void add(const at::Tensor& actual, const at::Tensor& expected);
  /// The same for distances |actual - expected| that were computed already, with the largest |expected|.
  void add_distance(const at::Tensor& distance, double largest_expected);
  /// max_abs relative to the largest expected element.
  double max_rel() const;
};

/// The sum of the squares of a tensor of any dtype, in float64: in float32 that of the 38 million elements of an
/// embedding would be off by 1e-4. Apart from parallel/square_sum.h, which is part of what is verified.
double square_of_norm(const at::Tensor& tensor);

/// Element-wise maximum of `values` over the ranks. Collective: the same number of values everywhere.
std::vector<double> max_over_ranks(const std::vector<double>& values, const ProcessGroup& group);
double max_over_ranks(double value, const ProcessGroup& group);

/// The differences as the worst rank sees them. Collective.
std::vector<Difference> max_over_ranks(const std::vector<Difference>& differences, const ProcessGroup& group);

/// "1.19e-07"
std::string short_number(double value);
/// The shortest text that reads back as the same number.
std::string full_number(double value);

}  // namespace optp

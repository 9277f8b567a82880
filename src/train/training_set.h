// What a run trains on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace optp {

/// Rows of a training set.
struct Examples {
  at::Tensor input;   ///< [N, ..]
  at::Tensor target;  ///< [N, ..]: what the loss compares with
};

/// Examples in an order that depends on the epoch alone: not on the mesh, and not on what was read before. Every rank
/// has the whole set and reads its part of each batch.
class TrainingSet {
 public:
  virtual ~TrainingSet() = default;

  /// Examples in an epoch.
  virtual int64_t size() const = 0;

  /// Examples `first` .. `first + count - 1` of epoch `epoch` (from 0).
  virtual Examples read(int64_t epoch, int64_t first, int64_t count) const = 0;

  /// Changes whenever read() would return something else. A run is resumed only on the data that it began with.
  virtual std::string fingerprint() const = 0;
};

}  // namespace optp

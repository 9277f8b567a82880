// Pure arithmetic: which range of a dimension a rank owns. No tensors, no communication.
#pragma once

#include <cstdint>

namespace optp {

/// Indices [start, start + size) of one dimension.
struct Range {
  int64_t start = 0;
  int64_t size = 0;

  int64_t end() const { return start + size; }
  bool contains(int64_t index) const { return index >= start && index < end(); }
  friend bool operator==(const Range&, const Range&) = default;
};

/// How a dimension of `total` elements is cut into `parts` contiguous ranges of whole blocks.
///
/// The blocks (attention heads, for example) are dealt out as evenly as possible: with `n` blocks, the first `n %
/// parts` parts own one block more than the others. Part `p` therefore starts where part `p - 1` ends, the ranges cover
/// the dimension, and any number of parts up to `n` gives every part something.
class ShardLayout {
 public:
  /// One part that owns everything.
  ShardLayout() = default;

  /// Throws c10::ValueError unless total is a positive multiple of block and 1 <= parts <= total / block.
  ShardLayout(int64_t total, int64_t parts, int64_t block = 1);

  int64_t total() const { return total_; }
  int64_t parts() const { return parts_; }

  /// The range of part 0 <= part < parts().
  Range range(int64_t part) const;

  /// Size of the largest part: what a collective that needs equal sizes pads to.
  int64_t largest() const { return range(0).size; }

  bool even() const { return total_ / block_ % parts_ == 0; }

 private:
  int64_t total_ = 1;
  int64_t parts_ = 1;
  int64_t block_ = 1;
};

}  // namespace optp

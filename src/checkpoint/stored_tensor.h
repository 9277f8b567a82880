// A tensor in the bytes of a file.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace optp {

/// Where a tensor lies in a mapped file. Whoever makes one has checked it.
struct StoredTensor {
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  std::vector<int64_t> shape;
  /// In elements, as torch counts them; empty: row-major without gaps, which need not be aligned.
  std::vector<int64_t> strides;
  /// From the first element to the last; little-endian.
  std::string_view bytes;

  bool is_contiguous() const { return strides.empty(); }
};

/// Same dtype, shape, strides and bytes. Touches all pages of both, unless they are the same ones.
bool same_content(const StoredTensor& a, const StoredTensor& b);

}  // namespace optp

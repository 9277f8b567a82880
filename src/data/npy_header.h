// The header of a NumPy file with token ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace optp {

/// A one-dimensional array of little-endian uint16 or uint32
/// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
struct NpyHeader {
  size_t item_size;  ///< 2 or 4
  int64_t count;     ///< ids
  size_t data;       ///< where they begin in the file
};

/// Reads the header of a whole file, versions 1 and 2. Nothing it says is trusted: c10::ValueError, beginning with the
/// name `file`, for anything but such an array with just as many ids behind it as it promises.
NpyHeader parse_npy_header(std::string_view bytes, const std::string& file);

/// A header of version 1. Its size is always kNpyHeaderSize, so that it can be written again once the count is known.
inline constexpr size_t kNpyHeaderSize = 128;
std::string npy_header(size_t item_size, int64_t count);

}  // namespace optp

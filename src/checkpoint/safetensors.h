// Reading a safetensors file: memory-mapped, so that a rank reads from the disk only the ranges it asks for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "src/checkpoint/mapped_file.h"
#include "src/checkpoint/safetensors_header.h"

namespace optp {

/// An open file. Everything it says about itself is checked when it is opened; reading threads may share it.
/// Errors are c10::ValueError: one sentence with the file, the tensor and the value that is wrong.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  /// Names in the order of the file's header.
  const std::vector<std::string>& names() const { return header_.names; }
  /// The strings under `__metadata__`.
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  bool contains(const std::string& name) const { return header_.entries.contains(name); }

  at::ScalarType dtype(const std::string& name) const { return entry(name).dtype; }
  const std::vector<int64_t>& shape(const std::string& name) const { return entry(name).shape; }
  /// The tensor's bytes in the mapping: row-major, little-endian, at any alignment.
  std::string_view bytes(const std::string& name) const;

  /// The tensor as stored, in memory of its own.
  at::Tensor read(const std::string& name) const;

  /// Copies indices [start, start + size) of dimension `dim` into `out`, a contiguous CPU tensor of that shape; with
  /// dim = -1 the whole tensor, whatever start and size. Floating-point values convert to the dtype of `out`; other
  /// dtypes must be the same. Touches no page outside the range and makes no copy of the range. `out` may be a
  /// parameter: autograd does not see the change.
  void read_range(const std::string& name, int64_t dim, int64_t start, int64_t size, const at::Tensor& out) const;

 private:
  const SafetensorsHeader::Entry& entry(const std::string& name) const;

  MappedFile file_;
  SafetensorsHeader header_;
  size_t data_start_ = 0;
};

}  // namespace optp

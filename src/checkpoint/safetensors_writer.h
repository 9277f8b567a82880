// Writing a safetensors file that any other reader of the format understands.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "src/checkpoint/atomic_file.h"

namespace optp {

/// A tensor that is going to be written.
struct TensorSpec {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;

  uint64_t bytes() const;
};

/// The first bytes of a file at `path` (for messages) that holds these tensors one after the other: the header's
/// length and the header, a multiple of 8 bytes in all. Throws c10::ValueError that names the path and the reason: a
/// name that comes twice, is "__metadata__" or not UTF-8, or a dtype that SafetensorsFile does not read.
std::string make_safetensors_header(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                                    const std::map<std::string, std::string>& metadata);

/// Writes a file tensor by tensor, so that no more than one of them, or a piece of one, need be in memory.
///
/// Call order: construct, write() until all tensors are complete, commit(). The file appears whole and flushed to the
/// disk, or not at all: on any error, or destroyed without commit, what was at `path` stays. Throws c10::ValueError
/// that names the path and the reason: a folder that is missing or not writable, a full disk, or what
/// make_safetensors_header refuses.
class SafetensorsWriter {
 public:
  /// `tensors` in the order of the file. `metadata` goes under `__metadata__` (transformers wants {"format", "pt"}).
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  /// The next elements, in row-major order: a whole tensor or a part of one, of any shape. Floating-point values
  /// convert to the tensor's dtype.
  void write(const at::Tensor& values);

  void commit();

 private:
  std::vector<TensorSpec> tensors_;
  std::filesystem::path path_;
  AtomicFile file_;
  size_t current_ = 0;      // the tensor that is being written
  uint64_t written_ = 0;    // bytes of it
  uint64_t remaining_ = 0;  // bytes of all that is not written yet
};

/// Writes `tensors` in the given order. Errors as above.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace optp

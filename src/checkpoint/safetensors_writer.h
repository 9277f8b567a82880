// Writing a safetensors file that any other reader of the format understands.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

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

/// Writes `tensors` in the given order, and `metadata` under `__metadata__` (transformers wants {"format", "pt"}
/// there). The file appears whole and flushed to the disk, or not at all: on any error what was at `path` stays. Throws
/// c10::ValueError that names the path and the reason: a folder that is missing or not writable, a full disk, or
/// what make_safetensors_header refuses.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace optp

// Writing a safetensors file that any other reader of the format understands.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace optp {

/// Writes `tensors` in the given order, and `metadata` under `__metadata__` (transformers wants {"format", "pt"}
/// there). The file appears whole and flushed to the disk, or not at all: on any error what was at `path` stays. Throws
/// c10::ValueError that names the path and the reason: a folder that is missing or not writable, a full disk, a name
/// that comes twice, is "__metadata__" or not UTF-8, or a dtype other than those that SafetensorsFile reads.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace optp

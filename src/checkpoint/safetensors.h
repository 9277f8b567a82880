// Reading a safetensors file.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "src/checkpoint/tensor_file.h"

namespace optp {

class SafetensorsFile final : public TensorFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// The strings under `__metadata__`.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::map<std::string, std::string> metadata_;
};

}  // namespace optp

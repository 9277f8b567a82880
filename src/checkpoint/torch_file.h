// Reading a state dict that torch.save wrote (pytorch_model.bin).
#pragma once

#include <filesystem>

#include "src/checkpoint/tensor_file.h"

namespace optp {

/// What can be read is said in torch_archive.h.
class TorchFile final : public TensorFile {
 public:
  explicit TorchFile(const std::filesystem::path& path);
};

}  // namespace optp

#include "src/checkpoint/torch_file.h"

#include <utility>

#include "src/checkpoint/torch_archive.h"

namespace optp {

TorchFile::TorchFile(const std::filesystem::path& path) : TensorFile(path) {
  for (auto& [name, tensor] : read_torch_archive(file().bytes(), path.string())) add(name, std::move(tensor));
}

}  // namespace optp

// A TorchScript file that optp wrote, read back.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "modules/opt_config.h"
#include "src/checkpoint/tensor_file.h"
#include "src/checkpoint/weight_source.h"

namespace optp {

/// The configuration and the weights of a file that write_torchscript wrote. torch::jit::load would compile the code in
/// the file and build whatever classes its pickle asks for; here the code is not looked at, and the pickle is read as
/// data (pickled_module.h). So nothing in a file can run, and weights are read by ranges, as from safetensors.
class TorchScriptFile final : public TensorFile {
 public:
  /// Whether `path` is a file that begins like an archive of TorchScript's and is not named as weights are.
  static bool recognises(const std::filesystem::path& path);

  explicit TorchScriptFile(const std::filesystem::path& path);

  const OptConfig& config() const { return config_; }

 private:
  OptConfig config_;
};

/// Its weights, which must be those of its configuration.
std::unique_ptr<WeightSource> torchscript_weights(const std::filesystem::path& path);

}  // namespace optp

// What `--model` names: a preset with fresh weights, or a folder that holds a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/parameter_shard.h"

namespace optp {

struct ModelSource {
  std::string name;  ///< as the user wrote it
  OptConfig config;
  std::optional<std::filesystem::path> directory;  ///< where the weights are; none: fresh ones

  /// Fills the parameters of a model built from `config`, sharded or whole: from the directory, or drawn from `seed`.
  void load_weights(const std::vector<NamedShard>& parameters, uint64_t seed) const;
};

/// Reads the configuration that `model` names; no weights yet. Throws c10::ValueError when there is no such model.
ModelSource find_model(const std::string& model);

/// The whole content of a text file of at most `limit` bytes. Throws c10::ValueError that names the path.
std::string read_text_file(const std::filesystem::path& path, size_t limit = size_t{64} << 20);

}  // namespace optp

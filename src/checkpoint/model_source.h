// What `--model` names: a preset with fresh weights, or a model that is stored in one of the forms optp reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"
#include "src/checkpoint/weight_source.h"

namespace optp {

struct ModelSource {
  std::string name;  ///< as the user wrote it
  OptConfig config;
  std::optional<std::filesystem::path> path;  ///< the file or folder with the weights; none: fresh ones

  /// The weights: those stored at `path`, or fresh ones of `config` drawn from `seed`. With a mesh of several ranks
  /// this and reading are collective over mesh.world(), which shares the work of checking what is stored; without one a
  /// single process does all of it.
  std::unique_ptr<WeightSource> open(uint64_t seed, const Mesh& mesh = Mesh()) const;

  /// Fills the parameters of a model built from `config`, sharded or whole.
  void load_weights(const std::vector<NamedShard>& parameters, uint64_t seed, const Mesh& mesh = Mesh()) const {
    open(seed, mesh)->load(parameters);
  }
};

/// Reads the configuration that `model` names; no weights yet. Throws c10::ValueError when there is no such model.
ModelSource find_model(const std::string& model);

/// The whole content of a text file of at most `limit` bytes. Throws c10::ValueError that names the path.
std::string read_text_file(const std::filesystem::path& path, size_t limit = size_t{64} << 20);

}  // namespace optp

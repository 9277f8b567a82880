// A model directory in Hugging Face's layout, and the weights in it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "parallel/parameter_shard.h"
#include "src/checkpoint/safetensors.h"

namespace optp {

/// `config.json` and the weights: `model.safetensors`, else the shards that `model.safetensors.index.json` names.
/// The weights stay memory-mapped, so any number of ranks may open the same directory and read their own ranges.
/// Errors are c10::ValueError: one sentence that names the file, the tensor and the value that is wrong.
class HfDirectory {
 public:
  /// Opens and checks the weights' headers; reads no weights.
  explicit HfDirectory(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_path() const { return path_ / "config.json"; }

  /// Fills each parameter with its range of the tensor of the same name, converted to the parameter's dtype. All is
  /// checked before the first value is written: every parameter must be there in its global shape, and nothing else may
  /// be. One exception: `lm_head.weight` that no parameter asks for (a tied head) must equal the embedding.
  void load(const std::vector<NamedShard>& parameters) const;

 private:
  struct Location {
    size_t file;       // index into files_
    std::string name;  // in that file; OPTForCausalLM's name is the key in tensors_
  };

  void open_shards(const std::filesystem::path& index);
  void add_tensors(size_t file);
  void check_names(const std::vector<NamedShard>& parameters) const;
  void check_tied_head() const;

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Location> tensors_;
};

}  // namespace optp

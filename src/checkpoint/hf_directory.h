// A model directory in Hugging Face's layout, and the weights in it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/checkpoint/tensor_file.h"
#include "src/checkpoint/weight_source.h"

namespace optp {

/// `config.json` and the weights: `model.safetensors`, else the shards that `model.safetensors.index.json` names, else
/// the same as `pytorch_model.bin`. The weights stay memory-mapped. Names may lack OPTForCausalLM's leading "model." or
/// "model.decoder.", and a tied head may be there or not; if it is, it must equal the embedding.
class HfDirectory final : public WeightSource {
 public:
  /// Whether `path` looks like one: a folder with a config.json, or a file .bin or .safetensors.
  static bool recognises(const std::filesystem::path& path);
  /// Of such a path.
  static std::filesystem::path config_path(const std::filesystem::path& path);

  /// The folder, or one file of weights beside its config.json. Opens and checks the weights' headers; reads no
  /// weights.
  explicit HfDirectory(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }

  void check(const std::vector<NamedShard>& parameters) const override;
  at::ScalarType dtype(const std::string& name) const override;
  void read(const NamedShard& parameter) const override;

 private:
  struct Location {
    const TensorFile* file;
    std::string name;  // in that file; OPTForCausalLM's name is the key in tensors_
    const StoredTensor& tensor() const { return file->tensor(name); }
  };

  void open_file(const std::filesystem::path& path);
  void open_shards(const std::filesystem::path& index);
  void add_tensors(const TensorFile& file);
  void check_names(const std::vector<NamedShard>& parameters) const;
  void check_tied_head() const;

  std::filesystem::path path_;
  std::vector<std::unique_ptr<TensorFile>> files_;
  std::map<std::string, Location> tensors_;
};

}  // namespace optp

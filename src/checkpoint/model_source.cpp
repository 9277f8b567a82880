#include "src/checkpoint/model_source.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "modules/opt_init.h"
#include "src/checkpoint/hf_directory.h"

namespace optp {

namespace fs = std::filesystem;

void ModelSource::load_weights(const std::vector<NamedShard>& parameters, uint64_t seed) const {
  if (directory) {
    HfDirectory(*directory).load(parameters);
  } else {
    initialize(parameters, config, seed);
  }
}

ModelSource find_model(const std::string& model) {
  const auto& presets = OptConfig::preset_names();
  std::error_code ignored;
  const fs::path path = model;
  if (std::find(presets.begin(), presets.end(), model) != presets.end() && !fs::is_directory(path, ignored)) {
    return {model, OptConfig::preset(model), std::nullopt};
  }
  if (!fs::exists(path, ignored))
    return {model, OptConfig::preset(model), std::nullopt};  // throws, and lists the presets
  TORCH_CHECK_VALUE(fs::is_directory(path, ignored), model,
                    " is no model: use a folder with config.json and weights, or "
                    "the name of a preset.");
  const fs::path config = path / "config.json";
  return {model, OptConfig::from_json(read_text_file(config), config.string()), path};
}

std::string read_text_file(const fs::path& path, size_t limit) {
  std::error_code ignored;
  TORCH_CHECK_VALUE(fs::exists(path, ignored), path.string(), " does not exist; check the path.");
  TORCH_CHECK_VALUE(fs::is_regular_file(path, ignored), path.string(), " is not a regular file; check the path.");
  TORCH_CHECK_VALUE(fs::file_size(path, ignored) <= limit, path.string(), " has more than ", limit,
                    " bytes; pass a smaller file.");
  std::ifstream stream(path, std::ios::binary);
  TORCH_CHECK_VALUE(stream.good(), path.string(), " cannot be read; check its permissions.");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace optp

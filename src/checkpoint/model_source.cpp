#include "src/checkpoint/model_source.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "src/checkpoint/hf_directory.h"
#include "src/checkpoint/torchscript_file.h"
#include "src/checkpoint/training_checkpoint.h"

namespace optp {

namespace fs = std::filesystem;

namespace {

class CheckpointWeights final : public WeightSource {
 public:
  CheckpointWeights(const fs::path& path, const Mesh& mesh) : checkpoint_(path, mesh) {}

  void check(const std::vector<NamedShard>& parameters) const override {
    checkpoint_.check_parameters(parameters);
    checkpoint_.verify_parameters();
  }
  at::ScalarType dtype(const std::string& name) const override { return checkpoint_.parameter_dtype(name); }
  void read(const NamedShard& parameter) const override { checkpoint_.read_parameter(parameter); }

 private:
  TrainingCheckpoint checkpoint_;
};

// A form in which a model is stored.
struct StoredForm {
  bool (*recognises)(const fs::path& path);
  OptConfig (*read_config)(const fs::path& path);
  std::unique_ptr<WeightSource> (*open)(const fs::path& path, const Mesh& mesh);
};

const StoredForm kTrainingCheckpoint = {
    TrainingCheckpoint::recognises,
    [](const fs::path& path) {
      const TrainingCheckpoint checkpoint(path);
      TORCH_CHECK_VALUE(!checkpoint.model_config().empty(), path.string(),
                        " does not say which model it belongs to; it was written by a program that trains others.");
      return OptConfig::from_json(checkpoint.model_config(), path.string());
    },
    [](const fs::path& path, const Mesh& mesh) -> std::unique_ptr<WeightSource> {
      return std::make_unique<CheckpointWeights>(path, mesh);
    }};

const StoredForm kHfDirectory = {HfDirectory::recognises,
                                 [](const fs::path& path) {
                                   const fs::path config = HfDirectory::config_path(path);
                                   return OptConfig::from_json(read_text_file(config), config.string());
                                 },
                                 [](const fs::path& path, const Mesh& /*mesh*/) -> std::unique_ptr<WeightSource> {
                                   return std::make_unique<HfDirectory>(path);
                                 }};

const StoredForm kTorchScript = {TorchScriptFile::recognises,
                                 [](const fs::path& path) { return TorchScriptFile(path).config(); },
                                 [](const fs::path& path, const Mesh& /*mesh*/) { return torchscript_weights(path); }};

// The first that recognises a path takes it.
const StoredForm& stored_form(const fs::path& path) {
  for (const StoredForm* form : {&kTrainingCheckpoint, &kHfDirectory, &kTorchScript}) {
    if (form->recognises(path)) return *form;
  }
  C10_THROW_ERROR(ValueError, c10::str(path.string(),
                                       " is no model: use a folder with config.json and weights, a training "
                                       "checkpoint, a TorchScript file that optp wrote, or the name of a preset."));
}

}  // namespace

std::unique_ptr<WeightSource> ModelSource::open(uint64_t seed, const Mesh& mesh) const {
  return path ? stored_form(*path).open(*path, mesh) : fresh_weights(config, seed);
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
  return {model, stored_form(path).read_config(path), path};
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

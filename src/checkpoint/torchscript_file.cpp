#include "src/checkpoint/torchscript_file.h"

#include <c10/util/Exception.h>

#include <array>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/torch_archive.h"
#include "src/checkpoint/zip_archive.h"

namespace optp {
namespace {

class TorchScriptWeights final : public WeightSource {
 public:
  explicit TorchScriptWeights(const std::filesystem::path& path) : file_(path) {}

  void check(const std::vector<NamedShard>& parameters) const override {
    const std::string path = file_.path().string();
    std::set<std::string> needed;
    for (const NamedShard& parameter : parameters) {
      needed.insert(parameter.name);
      TORCH_CHECK_VALUE(file_.contains(parameter.name), path, " lacks the tensor ", shown_name(parameter.name),
                        " that the model of its configuration needs.");
      const StoredTensor& stored = file_.tensor(parameter.name);
      TORCH_CHECK_VALUE(stored.shape == parameter.shard.shape, path, " has the tensor ", shown_name(parameter.name),
                        " of shape ", at::IntArrayRef(stored.shape), ", but the model needs ",
                        at::IntArrayRef(parameter.shard.shape), ".");
      TORCH_CHECK_VALUE(at::isFloatingType(stored.dtype), path, " has the tensor ", shown_name(parameter.name),
                        " of dtype ", stored.dtype, ", but a weight is floating-point.");
    }
    for (const std::string& name : file_.names()) {
      TORCH_CHECK_VALUE(needed.contains(name), path, " has the tensor ", shown_name(name),
                        " that the model of its configuration has no place for.");
    }
  }

  at::ScalarType dtype(const std::string& name) const override { return file_.dtype(name); }

  void read(const NamedShard& parameter) const override {
    const Range range = parameter.shard.range();
    file_.read_range(parameter.name, parameter.shard.dim.value_or(-1), range.start, range.size, parameter.tensor);
  }

 private:
  TorchScriptFile file_;
};

}  // namespace

bool TorchScriptFile::recognises(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  if (path.extension() == ".bin" || path.extension() == ".safetensors") return false;
  std::array<char, 4> begin{};
  std::ifstream(path, std::ios::binary).read(begin.data(), begin.size());
  return is_zip({begin.data(), begin.size()});
}

TorchScriptFile::TorchScriptFile(const std::filesystem::path& path) : TensorFile(path) {
  ScriptArchive archive = read_script_archive(file().bytes(), path.string());
  config_ = OptConfig::from_json(archive.config, path.string());
  for (auto& [name, tensor] : archive.tensors) add(name, std::move(tensor));
}

std::unique_ptr<WeightSource> torchscript_weights(const std::filesystem::path& path) {
  return std::make_unique<TorchScriptWeights>(path);
}

}  // namespace optp

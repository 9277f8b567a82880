#include "src/checkpoint/safetensors_writer.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <set>

#include "src/checkpoint/atomic_file.h"
#include "src/checkpoint/safetensors_header.h"

namespace optp {
std::string make_safetensors_header(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                                    const std::map<std::string, std::string>& metadata) {
  // Objects are put together by hand: a JSON object of the library would sort them, or search all for every new one.
  std::string text = "{";
  const auto add = [&](const std::string& key, const nlohmann::ordered_json& value) {
    text += (text.size() > 1 ? "," : "") + nlohmann::json(key).dump() + ":" + value.dump();
  };
  try {
    if (!metadata.empty()) add("__metadata__", metadata);
    std::set<std::string> names = {"__metadata__"};
    uint64_t position = 0;
    for (const TensorSpec& tensor : tensors) {
      TORCH_CHECK_VALUE(names.insert(tensor.name).second, "cannot write ", path.string(), ": the name ",
                        shown_name(tensor.name), " is taken.");
      const std::optional<std::string> dtype = safetensors_dtype_name(tensor.dtype);
      TORCH_CHECK_VALUE(dtype.has_value(), "cannot write ", path.string(), ": tensor ", shown_name(tensor.name),
                        " has the dtype ", tensor.dtype, ", which is not written.");
      const uint64_t end = position + tensor.bytes();
      nlohmann::ordered_json entry;
      entry["dtype"] = *dtype;
      entry["shape"] = tensor.shape;
      entry["data_offsets"] = {position, end};
      add(tensor.name, entry);
      position = end;
    }
  } catch (const nlohmann::json::exception&) {
    TORCH_CHECK_VALUE(false, "cannot write ", path.string(),
                      ": the name of a tensor or a string of the metadata is not valid UTF-8.");
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  TORCH_CHECK_VALUE(text.size() <= kLongestSafetensorsHeader, "cannot write ", path.string(), ": its header would be ",
                    text.size(), " bytes long, above the format's limit of ", kLongestSafetensorsHeader, ".");
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

uint64_t TensorSpec::bytes() const {
  return static_cast<uint64_t>(c10::multiply_integers(shape)) * c10::elementSize(dtype);
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK_VALUE(tensor.defined(), "cannot write ", path.string(), ": tensor ", shown_name(name),
                      " is undefined.");
    specs.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  const std::string header = make_safetensors_header(path, specs, metadata);
  AtomicFile file(path);
  file.write(header.data(), header.size());
  for (const auto& named : tensors) {
    const at::Tensor tensor = named.second.detach().cpu().contiguous();
    file.write(tensor.const_data_ptr(), tensor.nbytes());
  }
  file.commit();
}

}  // namespace optp

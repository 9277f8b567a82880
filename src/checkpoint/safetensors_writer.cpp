#include "src/checkpoint/safetensors_writer.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>
#include <set>

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

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(std::move(tensors)), path_(path), file_(path) {
  const std::string header = make_safetensors_header(path, tensors_, metadata);
  file_.write(header.data(), header.size());
  for (const TensorSpec& tensor : tensors_) remaining_ += tensor.bytes();
}

void SafetensorsWriter::write(const at::Tensor& values) {
  // Converted in pieces that stay in the cache.
  constexpr int64_t kConverted = 1 << 18;
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
    ++current_;
    written_ = 0;
  }
  if (values.numel() == 0) return;
  TORCH_CHECK(current_ < tensors_.size(), "all tensors of ", path_.string(), " have been written.");
  const TensorSpec& tensor = tensors_[current_];
  const uint64_t size = values.numel() * c10::elementSize(tensor.dtype);
  TORCH_CHECK(size <= tensor.bytes() - written_, "tensor ", shown_name(tensor.name), " of ", path_.string(), " is ",
              at::IntArrayRef(tensor.shape), "; too many values were passed.");
  TORCH_CHECK(values.scalar_type() == tensor.dtype ||
                  (at::isFloatingType(values.scalar_type()) && at::isFloatingType(tensor.dtype)),
              values.scalar_type(), " values do not convert to the ", tensor.dtype, " of tensor ",
              shown_name(tensor.name), ".");
  const at::Tensor flat = values.detach().cpu().contiguous().view(-1);
  if (flat.scalar_type() == tensor.dtype) {
    file_.write(flat.const_data_ptr(), flat.nbytes());
  } else {
    for (int64_t start = 0; start < flat.numel(); start += kConverted) {
      const at::Tensor piece = flat.narrow(0, start, std::min(kConverted, flat.numel() - start)).to(tensor.dtype);
      file_.write(piece.const_data_ptr(), piece.nbytes());
    }
  }
  written_ += size;
  remaining_ -= size;
}

void SafetensorsWriter::commit() {
  TORCH_CHECK(remaining_ == 0, "not all tensors of ", path_.string(), " have been written: ", remaining_,
              " bytes are missing.");
  file_.commit();
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
  SafetensorsWriter writer(path, std::move(specs), metadata);
  for (const auto& named : tensors) writer.write(named.second);
  writer.commit();
}

}  // namespace optp

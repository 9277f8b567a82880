#include "src/checkpoint/hf_directory.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/torch_file.h"
#include "src/checkpoint/weight_index.h"

namespace optp {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTiedHeadName = "lm_head.weight";
constexpr const char* kTiedEmbeddingName = "model.decoder.embed_tokens.weight";

// The published 350m and files of the model without its head leave out the leading "model."; files of the decoder alone
// leave out "model.decoder.".
std::string name_in_causal_lm(const std::string& name) {
  if (name.starts_with("decoder.")) return "model." + name;
  for (const char* part :
       {"embed_tokens.", "embed_positions.", "project_in.", "project_out.", "final_layer_norm.", "layers."}) {
    if (name.starts_with(part)) return "model.decoder." + name;
  }
  return name;
}

std::string and_more(size_t count) { return count > 1 ? " and " + std::to_string(count - 1) + " more" : ""; }

}  // namespace

bool HfDirectory::recognises(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return fs::exists(config_path(path), ignored);
  return path.extension() == ".bin" || path.extension() == ".safetensors";
}

fs::path HfDirectory::config_path(const fs::path& path) {
  std::error_code ignored;
  return (fs::is_directory(path, ignored) ? path : path.parent_path()) / "config.json";
}

HfDirectory::HfDirectory(fs::path path) : path_(std::move(path)) {
  std::error_code ignored;
  if (!fs::is_directory(path_, ignored)) {
    open_file(path_);
    add_tensors(*files_.back());
    return;
  }
  for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
    const fs::path single = path_ / name;
    const fs::path index = path_ / (std::string(name) + ".index.json");
    if (fs::exists(single, ignored)) {
      open_file(single);
      add_tensors(*files_.back());
      return;
    }
    if (fs::exists(index, ignored)) {
      open_shards(index);
      return;
    }
  }
  TORCH_CHECK_VALUE(false, path_.string(),
                    " has no weights: neither model.safetensors nor pytorch_model.bin, nor an index of their shards.");
}

void HfDirectory::open_file(const fs::path& path) {
  if (path.extension() == ".bin") {
    files_.push_back(std::make_unique<TorchFile>(path));
  } else {
    files_.push_back(std::make_unique<SafetensorsFile>(path));
  }
}

void HfDirectory::open_shards(const fs::path& index) {
  const std::map<std::string, std::string> mapping = read_weight_index(index);
  std::map<std::string, const TensorFile*> opened;
  for (const auto& [name, file_name] : mapping) {
    const auto [entry, is_new] = opened.try_emplace(file_name, nullptr);
    if (is_new) {
      std::error_code ignored;
      TORCH_CHECK_VALUE(fs::exists(path_ / file_name, ignored), path_.string(), " has no file ", shown_name(file_name),
                        ", which its index names for tensor ", shown_name(name), ".");
      open_file(path_ / file_name);
      entry->second = files_.back().get();
    }
    const TensorFile& file = *entry->second;
    TORCH_CHECK_VALUE(file.contains(name), file.path().string(), " has no tensor ", shown_name(name), ", which ",
                      index.string(), " maps to it.");
  }
  for (const auto& file : files_) {
    for (const std::string& name : file->names()) {
      const auto mapped = mapping.find(name);
      TORCH_CHECK_VALUE(mapped != mapping.end() && opened.at(mapped->second) == file.get(), file->path().string(),
                        " has the tensor ", shown_name(name), ", which ", index.string(), " does not map to it.");
    }
    add_tensors(*file);
  }
}

void HfDirectory::add_tensors(const TensorFile& file) {
  for (const std::string& name : file.names()) {
    const bool is_new = tensors_.try_emplace(name_in_causal_lm(name), Location{&file, name}).second;
    TORCH_CHECK_VALUE(is_new, file.path().string(), " has the tensor ", shown_name(name_in_causal_lm(name)),
                      " twice, with and without the leading \"model.decoder.\".");
  }
}

at::ScalarType HfDirectory::dtype(const std::string& name) const { return tensors_.at(name).tensor().dtype; }

void HfDirectory::read(const NamedShard& parameter) const {
  const auto& [file, name] = tensors_.at(parameter.name);
  const Range range = parameter.shard.range();
  file->read_range(name, parameter.shard.dim.value_or(-1), range.start, range.size, parameter.tensor);
}

void HfDirectory::check(const std::vector<NamedShard>& parameters) const {
  check_names(parameters);
  for (const NamedShard& parameter : parameters) {
    const Location& location = tensors_.at(parameter.name);
    const StoredTensor& stored = location.tensor();
    TORCH_CHECK_VALUE(stored.shape == parameter.shard.shape, location.file->path().string(), " has the tensor ",
                      shown_name(location.name), " of shape ", at::IntArrayRef(stored.shape), ", but the model needs ",
                      at::IntArrayRef(parameter.shard.shape), "; config.json and the weights do not belong together.");
    TORCH_CHECK_VALUE(at::isFloatingType(stored.dtype), location.file->path().string(), " has the tensor ",
                      shown_name(location.name), " of dtype ", *safetensors_dtype_name(stored.dtype),
                      ", but a weight is floating-point.");
  }
}

void HfDirectory::check_names(const std::vector<NamedShard>& parameters) const {
  std::set<std::string_view> needed;
  std::vector<std::string> missing;
  for (const NamedShard& parameter : parameters) {
    needed.insert(parameter.name);
    if (!tensors_.contains(parameter.name)) missing.push_back(parameter.name);
  }
  std::vector<std::string> unknown;
  for (const auto& [name, location] : tensors_) {
    if (!needed.contains(name) && name != kTiedHeadName) unknown.push_back(location.name);
  }
  TORCH_CHECK_VALUE(missing.size() < parameters.size(), path_.string(), " holds no OPT model: none of its ",
                    tensors_.size(), " tensors has the name of a weight of OPT, such as ", kTiedEmbeddingName, ".");
  const std::string beside =
      unknown.empty() ? "" : ", and has the unknown " + shown_name(unknown.front()) + and_more(unknown.size());
  TORCH_CHECK_VALUE(missing.empty(), path_.string(), " lacks the tensor ", shown_name(missing.front()),
                    and_more(missing.size()), " that the model of its config.json needs", beside, ".");
  TORCH_CHECK_VALUE(unknown.empty(), path_.string(), " has the tensor ", shown_name(unknown.front()),
                    and_more(unknown.size()), " that the model of its config.json has no place for.");
  if (tensors_.contains(kTiedHeadName) && !needed.contains(kTiedHeadName)) check_tied_head();
}

// All of it on every rank, not its range alone: then all ranks agree on the error.
void HfDirectory::check_tied_head() const {
  const auto embedding = tensors_.find(kTiedEmbeddingName);
  const Location& head = tensors_.at(kTiedHeadName);
  const bool equal = embedding != tensors_.end() && same_content(head.tensor(), embedding->second.tensor());
  TORCH_CHECK_VALUE(equal, "the head in ", head.file->path().string(), " is not tied: ", shown_name(head.name),
                    " differs from the embedding, but config.json says that they are one tensor.");
}

}  // namespace optp

#include "src/checkpoint/hf_directory.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/checkpoint/safetensors_index.h"

namespace optp {
namespace {

constexpr const char* kTiedHeadName = "lm_head.weight";
constexpr const char* kTiedEmbeddingName = "model.decoder.embed_tokens.weight";

// The published 350m, and files of the model without its head, leave out the leading "model.".
std::string name_in_causal_lm(const std::string& name) { return name.starts_with("decoder.") ? "model." + name : name; }

std::string and_more(size_t count) { return count > 1 ? " and " + std::to_string(count - 1) + " more" : ""; }

}  // namespace

HfDirectory::HfDirectory(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code ignored;
  TORCH_CHECK_VALUE(std::filesystem::is_directory(path_, ignored), path_.string(), " is not a folder.");
  TORCH_CHECK_VALUE(std::filesystem::is_regular_file(config_path(), ignored), path_.string(),
                    " has no config.json: a model directory in Hugging Face's layout is needed.");
  const std::filesystem::path single = path_ / "model.safetensors";
  const std::filesystem::path index = path_ / "model.safetensors.index.json";
  if (std::filesystem::exists(single, ignored)) {
    files_.emplace_back(single);
    add_tensors(0);
  } else {
    TORCH_CHECK_VALUE(std::filesystem::exists(index, ignored), path_.string(),
                      " has neither model.safetensors nor model.safetensors.index.json: save the model's weights as "
                      "safetensors.");
    open_shards(index);
  }
}

void HfDirectory::open_shards(const std::filesystem::path& index) {
  const std::map<std::string, std::string> mapping = read_safetensors_index(index);
  std::map<std::string, size_t> opened;
  for (const auto& [name, file_name] : mapping) {
    const auto [entry, is_new] = opened.try_emplace(file_name, files_.size());
    if (is_new) {
      std::error_code ignored;
      TORCH_CHECK_VALUE(std::filesystem::exists(path_ / file_name, ignored), path_.string(), " has no file ",
                        shown_name(file_name), ", which its index names for tensor ", shown_name(name), ".");
      files_.emplace_back(path_ / file_name);
    }
    const SafetensorsFile& file = files_[entry->second];
    TORCH_CHECK_VALUE(file.contains(name), file.path().string(), " has no tensor ", shown_name(name), ", which ",
                      index.string(), " maps to it.");
  }
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const std::string& name : files_[i].names()) {
      const auto mapped = mapping.find(name);
      TORCH_CHECK_VALUE(mapped != mapping.end() && opened.at(mapped->second) == i, files_[i].path().string(),
                        " has the tensor ", shown_name(name), ", which ", index.string(), " does not map to it.");
    }
    add_tensors(i);
  }
}

void HfDirectory::add_tensors(size_t file) {
  for (const std::string& name : files_[file].names()) {
    const bool is_new = tensors_.try_emplace(name_in_causal_lm(name), Location{file, name}).second;
    TORCH_CHECK_VALUE(is_new, files_[file].path().string(), " has the tensor ", shown_name(name_in_causal_lm(name)),
                      " twice, with and without the leading \"model.\".");
  }
}

void HfDirectory::load(const std::vector<NamedShard>& parameters) const {
  check_names(parameters);
  for (const NamedShard& parameter : parameters) {
    const auto& [file, name] = tensors_.at(parameter.name);
    const std::vector<int64_t>& found = files_[file].shape(name);
    TORCH_CHECK_VALUE(found == parameter.shard.shape, files_[file].path().string(), " has the tensor ",
                      shown_name(name), " of shape ", at::IntArrayRef(found), ", but the model needs ",
                      at::IntArrayRef(parameter.shard.shape), "; config.json and the weights do not belong together.");
    TORCH_CHECK_VALUE(at::isFloatingType(files_[file].dtype(name)), files_[file].path().string(), " has the tensor ",
                      shown_name(name), " of dtype ", *safetensors_dtype_name(files_[file].dtype(name)),
                      ", but a weight is floating-point.");
  }
  for (const NamedShard& parameter : parameters) {
    const auto& [file, name] = tensors_.at(parameter.name);
    const Range range = parameter.shard.range();
    files_[file].read_range(name, parameter.shard.dim.value_or(-1), range.start, range.size, parameter.tensor);
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
  const SafetensorsFile& head_file = files_[head.file];
  bool equal = embedding != tensors_.end();
  if (equal) {
    const auto& [index, name] = embedding->second;
    equal = head_file.shape(head.name) == files_[index].shape(name) &&
            head_file.dtype(head.name) == files_[index].dtype(name) &&
            head_file.bytes(head.name) == files_[index].bytes(name);
  }
  TORCH_CHECK_VALUE(equal, "the head in ", head_file.path().string(), " is not tied: ", shown_name(head.name),
                    " differs from the embedding, but config.json says that they are one tensor.");
}

}  // namespace optp

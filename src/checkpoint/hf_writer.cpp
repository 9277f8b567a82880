#include "src/checkpoint/hf_writer.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <exception>
#include <system_error>
#include <utility>

#include "parallel/agreement.h"
#include "src/checkpoint/mapped_file.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

constexpr std::array kTokenizerFiles = {"vocab.json",         "merges.txt",
                                        "tokenizer.json",     "tokenizer_config.json",
                                        "added_tokens.json",  "special_tokens_map.json",
                                        "chat_template.jinja"};

void write_whole_file(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

// Copies a file that may be missing; whether it was there.
bool copy_if_present(const fs::path& from, const fs::path& to) {
  std::error_code ignored;
  if (!fs::exists(from, ignored)) return false;
  write_whole_file(to, MappedFile(from).bytes());
  return true;
}

std::string generation_config(const OptConfig& config) {
  nlohmann::ordered_json object;
  object["_from_model_config"] = true;
  object["bos_token_id"] = config.bos_token_id();
  object["eos_token_id"] = config.eos_token_id();
  object["pad_token_id"] = config.pad_token_id();
  return object.dump(2) + "\n";
}

std::string shard_file(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  std::array<char, 64> name{};
  std::snprintf(name.data(), name.size(), "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name.data();
}

}  // namespace

HfWriter::HfWriter(const fs::path& folder, const OptConfig& config, std::vector<TensorSpec> tensors,
                   const HfWriterOptions& options)
    : folder_(options.replace ? folder : new_folder(folder), /*mode=*/0777), tensors_(std::move(tensors)) {
  TORCH_CHECK(!tensors_.empty(), "a model directory without tensors was asked for.");
  std::vector<uint64_t> bytes;
  for (const TensorSpec& tensor : tensors_) bytes.push_back(tensor.bytes());
  const auto split = split_into_shards(bytes, options.max_shard_size);
  shard_of_.resize(tensors_.size());
  for (size_t i = 0; i < split.size(); ++i) {
    Shard& shard = shards_.emplace_back();
    shard.file = shard_file(i, split.size());
    shard.unfinished = split[i].size();
    for (const size_t tensor : split[i]) {
      shard.tensors.push_back(tensors_[tensor]);
      shard_of_[tensor] = i;
    }
  }

  const fs::path& work = folder_.temporary();
  write_whole_file(work / "config.json", config.to_json(tensors_.front().dtype));
  if (!options.generation_config ||
      !copy_if_present(*options.generation_config / "generation_config.json", work / "generation_config.json")) {
    write_whole_file(work / "generation_config.json", generation_config(config));
  }
  if (options.tokenizer) {
    for (const char* name : kTokenizerFiles) copy_if_present(*options.tokenizer / name, work / name);
  }
}

void HfWriter::write(const at::Tensor& values) {
  TORCH_CHECK(current_ < tensors_.size(), "all tensors of the model directory have been written.");
  Shard& shard = shards_[shard_of_[current_]];
  if (!shard.writer) {
    shard.writer = std::make_unique<SafetensorsWriter>(folder_.temporary() / shard.file, shard.tensors,
                                                       std::map<std::string, std::string>{{"format", "pt"}});
  }
  shard.writer->write(values);
  written_ += values.numel();
  if (written_ < c10::multiply_integers(tensors_[current_].shape)) return;
  ++current_;
  written_ = 0;
  if (--shard.unfinished > 0) return;
  shard.writer->commit();
  shard.writer.reset();  // closes the file: there may be more of them than a process may have open
}

void HfWriter::write_index() const {
  nlohmann::ordered_json map;
  uint64_t parameters = 0;
  uint64_t bytes = 0;
  std::map<std::string, std::string> files;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    files[tensors_[i].name] = shards_[shard_of_[i]].file;
    parameters += c10::multiply_integers(tensors_[i].shape);
    bytes += tensors_[i].bytes();
  }
  nlohmann::ordered_json index;
  index["metadata"] = {{"total_parameters", parameters}, {"total_size", bytes}};
  index["weight_map"] = files;
  write_whole_file(folder_.temporary() / "model.safetensors.index.json", index.dump(2) + "\n");
}

void HfWriter::commit() {
  TORCH_CHECK(current_ == tensors_.size(), "tensor ", tensors_[current_].name, " has not been written.");
  if (shards_.size() > 1) write_index();
  folder_.commit();
}

void write_hf_directory(const fs::path& folder, const OptConfig& config, const std::vector<NamedShard>& parameters,
                        const Mesh& mesh, std::optional<at::ScalarType> dtype, const HfWriterOptions& options) {
  const bool writes = mesh.world().rank() == 0;
  std::unique_ptr<HfWriter> writer;
  run_on_all(mesh.world(), "write_hf_directory begin", [&] {
    if (!writes) return;
    std::vector<TensorSpec> tensors;
    for (const NamedShard& parameter : parameters) {
      tensors.push_back({parameter.name, dtype.value_or(parameter.tensor.scalar_type()), parameter.shard.shape});
    }
    writer = std::make_unique<HfWriter>(folder, config, std::move(tensors), options);
  });
  std::exception_ptr failure;
  for (const NamedShard& parameter : parameters) {
    if (mesh.data().rank() == 0) {
      const at::Tensor whole = gather_whole(parameter.tensor.detach(), parameter.shard, mesh.tensor(), parameter.name);
      try {
        if (writes && !failure) writer->write(whole);
      } catch (...) {
        failure = std::current_exception();  // the others learn of it at the end
      }
    }
    mesh.world().barrier("write_hf_directory");  // so that nobody waits longer than for one parameter
  }
  run_on_all(mesh.world(), "write_hf_directory end", [&] {
    if (failure) std::rethrow_exception(failure);
    if (writes) writer->commit();
  });
}

std::vector<std::vector<size_t>> split_into_shards(const std::vector<uint64_t>& bytes, uint64_t max_shard_size) {
  std::vector<std::vector<size_t>> shards;
  std::vector<size_t> current;
  uint64_t current_size = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] > max_shard_size) {  // a file of its own, before the one that is being filled
      shards.push_back({i});
      continue;
    }
    if (current_size + bytes[i] > max_shard_size) {
      shards.push_back(std::move(current));
      current = {};
      current_size = 0;
    }
    current.push_back(i);
    current_size += bytes[i];
  }
  if (!current.empty()) shards.push_back(std::move(current));
  return shards;
}

uint64_t parse_shard_size(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, double>, 5> kUnits = {
      {{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"", 1}}};
  std::string upper;
  for (const char letter : text) {
    if (letter != ' ') upper += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  }
  for (const auto& [unit, factor] : kUnits) {
    if (!upper.ends_with(unit)) continue;
    const std::string number = upper.substr(0, upper.size() - unit.size());
    double size = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), size);
    if (error != std::errc() || end != number.data() + number.size()) continue;
    size *= factor;
    if (size >= 1 && size <= 1e18) return static_cast<uint64_t>(size);
  }
  C10_THROW_ERROR(ValueError, c10::str("\"", text, "\" is no size of a file; write it as 5GB, 200KB or 1.5MB."));
}

}  // namespace optp

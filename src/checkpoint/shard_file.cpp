#include "src/checkpoint/shard_file.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

#include "src/checkpoint/crc64.h"
#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/safetensors_writer.h"

namespace optp {
namespace {

std::string boxes_json(const std::vector<ShardFileEntry>& entries) {
  nlohmann::json boxes = nlohmann::json::object();
  for (const ShardFileEntry& entry : entries) {
    boxes[entry.name] = {{"shape", entry.box.shape}, {"start", entry.box.start}, {"size", entry.box.size}};
  }
  return boxes.dump();
}

template <typename... Parts>
[[noreturn]] void refuse_shard_file(const SafetensorsFile& file, const Parts&... parts) {
  C10_THROW_ERROR(ValueError, c10::str("cannot read ", file.path().string(), ": ", parts..., "."));
}

std::vector<int64_t> read_numbers(const SafetensorsFile& file, const std::string& name, const nlohmann::json& box,
                                  const char* key) {
  std::vector<int64_t> numbers;
  const bool present = box.is_object() && box.contains(key) && box[key].is_array();
  if (present) {
    for (const nlohmann::json& number : box[key]) {
      const bool fits = number.is_number_integer() && number.get<int64_t>() >= 0;
      if (!fits)
        refuse_shard_file(file, "the ", key, " of tensor ", shown_name(name), " holds ", shown_name(number.dump()));
      numbers.push_back(number.get<int64_t>());
    }
  }
  if (!present) refuse_shard_file(file, "its metadata lists no \"", key, "\" of tensor ", shown_name(name));
  return numbers;
}

nlohmann::json parse_boxes(const SafetensorsFile& file, const std::string& text) {
  constexpr int kDeepest = 3;
  const auto check_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kDeepest) refuse_shard_file(file, "the \"tensors\" of its metadata nest too deep");
    return true;
  };
  try {
    nlohmann::json boxes = nlohmann::json::parse(text, check_depth);
    if (boxes.is_object()) return boxes;
  } catch (const nlohmann::json::exception&) {  // NOLINT(bugprone-empty-catch): refused below
  }
  refuse_shard_file(file, "the \"tensors\" of its metadata are not a JSON object");
}

}  // namespace

ShardFileWriter::ShardFileWriter(const std::filesystem::path& folder, CheckpointPart part, int64_t rank, int64_t tp,
                                 std::vector<ShardFileEntry> entries)
    : description_{checkpoint_file_name(part, rank, tp), part, rank, 0, 0},
      entries_(std::move(entries)),
      file_(folder / description_.name, /*mode=*/0600) {
  // Whatever reads the file in place finds every number at an address that suits it.
  std::stable_sort(entries_.begin(), entries_.end(), [](const ShardFileEntry& a, const ShardFileEntry& b) {
    return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
  });
  std::vector<TensorSpec> specs;
  for (const ShardFileEntry& entry : entries_) {
    specs.push_back({entry.name, entry.dtype, entry.box.size});
    final_size_ += specs.back().bytes();
  }
  header_ = make_safetensors_header(folder / description_.name, specs,
                                    {{"format", kCheckpointFormat},
                                     {"version", std::to_string(kCheckpointVersion)},
                                     {"part", checkpoint_part_name(part)},
                                     {"rank", std::to_string(rank)},
                                     {"tp", std::to_string(tp)},
                                     {"tensors", boxes_json(entries_)}});
  final_size_ += header_.size();
}

bool ShardFileWriter::write_until(std::chrono::steady_clock::time_point deadline) {
  constexpr size_t kPiece = size_t{1} << 20;  // fits the cache: summed and written while it is there
  if (!header_.empty()) write(std::exchange(header_, std::string()));
  while (std::chrono::steady_clock::now() < deadline) {
    if (!tensor_.defined() || tensor_written_ == tensor_.nbytes()) {
      tensor_ = at::Tensor();
      if (next_entry_ == entries_.size()) {
        file_.commit();
        return true;
      }
      const ShardFileEntry& entry = entries_[next_entry_++];
      tensor_ = entry.tensor().detach().cpu().contiguous();
      TORCH_CHECK_VALUE(tensor_.sizes() == entry.box.size && tensor_.scalar_type() == entry.dtype, "tensor ",
                        shown_name(entry.name), " is ", tensor_.sizes(), " of ", tensor_.scalar_type(), ", not ",
                        at::IntArrayRef(entry.box.size), " of ", entry.dtype, ".");
      tensor_written_ = 0;
    }
    const size_t size = std::min(kPiece, tensor_.nbytes() - tensor_written_);
    if (size > 0) write({static_cast<const char*>(tensor_.const_data_ptr()) + tensor_written_, size});
    tensor_written_ += size;
  }
  return false;
}

void ShardFileWriter::write(std::string_view bytes) {
  description_.crc64 = crc64(bytes, description_.crc64);
  description_.size += bytes.size();
  file_.write(bytes.data(), bytes.size());
}

std::map<std::string, TensorBox> read_shard_boxes(const SafetensorsFile& file, const CheckpointManifest::File& expected,
                                                  int64_t tp) {
  const std::map<std::string, std::string>& metadata = file.metadata();
  const std::map<std::string, std::string> needed = {{"format", kCheckpointFormat},
                                                     {"version", std::to_string(kCheckpointVersion)},
                                                     {"part", checkpoint_part_name(expected.part)},
                                                     {"rank", std::to_string(expected.rank)},
                                                     {"tp", std::to_string(tp)}};
  for (const auto& [key, value] : needed) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) refuse_shard_file(file, "its metadata has no \"", key, "\"");
    if (found->second != value) {
      refuse_shard_file(file, "its metadata says ", key, " ", shown_name(found->second), ", but ",
                        kCheckpointManifestName, " says ", shown_name(value), ": the file belongs elsewhere");
    }
  }
  const auto text = metadata.find("tensors");
  if (text == metadata.end()) refuse_shard_file(file, "its metadata has no \"tensors\"");
  const nlohmann::json json = parse_boxes(file, text->second);
  std::map<std::string, TensorBox> boxes;
  for (const auto& [name, value] : json.items()) {
    if (!file.contains(name)) refuse_shard_file(file, "it lacks the tensor ", shown_name(name), " of its metadata");
    const TensorBox box{read_numbers(file, name, value, "shape"), read_numbers(file, name, value, "start"),
                        read_numbers(file, name, value, "size")};
    if (!is_sound(box) || box.size != file.shape(name)) {
      refuse_shard_file(file, "tensor ", shown_name(name), " of shape ", at::IntArrayRef(file.shape(name)),
                        " cannot be the part of size ", at::IntArrayRef(box.size), " from ", at::IntArrayRef(box.start),
                        " of a whole of shape ", at::IntArrayRef(box.shape));
    }
    boxes.emplace(name, box);
  }
  for (const std::string& name : file.names()) {
    if (!boxes.contains(name)) refuse_shard_file(file, "its metadata does not place the tensor ", shown_name(name));
  }
  return boxes;
}

}  // namespace optp

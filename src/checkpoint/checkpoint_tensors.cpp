#include "src/checkpoint/checkpoint_tensors.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <set>
#include <string_view>

#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/shard_file.h"

namespace optp {
namespace {

// "parameter", "optimizer state", for sentences.
const char* noun(CheckpointPart part) { return part == CheckpointPart::parameters ? "parameter" : "optimizer state"; }

std::string others(size_t count) { return count > 1 ? " and " + std::to_string(count - 1) + " more" : ""; }

}  // namespace

CheckpointTensors::CheckpointTensors(const std::filesystem::path& folder, const CheckpointManifest& manifest,
                                     CheckpointPart part)
    : folder_(folder), part_(part) {
  for (const CheckpointManifest::File& file : manifest.files_of(part)) {
    files_.emplace_back(folder / file.name);
    for (auto& [name, box] : read_shard_boxes(files_.back(), file, manifest.tp)) {
      tensors_[name].push_back({files_.size() - 1, box});
    }
  }
  for (const auto& [name, found] : tensors_) check_pieces(name, found);
}

void CheckpointTensors::check_pieces(const std::string& name, const std::vector<Piece>& found) const {
  const SafetensorsFile& first = files_[found.front().file];
  std::vector<TensorBox> boxes;
  for (const Piece& piece : found) {
    const SafetensorsFile& file = files_[piece.file];
    TORCH_CHECK_VALUE(piece.box.shape == found.front().box.shape && file.dtype(name) == first.dtype(name),
                      "cannot read ", file.path().string(), ": tensor ", shown_name(name), " is part of a ",
                      file.dtype(name), " tensor of shape ", at::IntArrayRef(piece.box.shape), " there and of a ",
                      first.dtype(name), " one of shape ", at::IntArrayRef(found.front().box.shape), " in ",
                      first.path().filename().string(), ".");
    boxes.push_back(piece.box);
  }
  const Tiling result = tiling(boxes);
  TORCH_CHECK_VALUE(result == Tiling::exact, "cannot read ", folder_.string(), ": the parts of tensor ",
                    shown_name(name), " in ", first.path().filename().string(), others(found.size()),
                    result == Tiling::overlap ? " overlap." : " leave a gap.");
}

const std::vector<CheckpointTensors::Piece>& CheckpointTensors::pieces(const std::string& name) const {
  const auto found = tensors_.find(name);
  TORCH_CHECK_VALUE(found != tensors_.end(), folder_.string(), " has no ", noun(part_), " ", shown_name(name), ".");
  return found->second;
}

void CheckpointTensors::check(const std::vector<NamedShard>& wanted) const {
  std::set<std::string_view> names;
  std::vector<std::string> missing;
  for (const NamedShard& shard : wanted) {
    names.insert(shard.name);
    if (!tensors_.contains(shard.name)) missing.push_back(shard.name);
  }
  TORCH_CHECK_VALUE(missing.empty(), folder_.string(), " belongs to another model: it lacks the ", noun(part_), " ",
                    shown_name(missing.front()), others(missing.size()), ".");
  std::vector<std::string> unknown;
  for (const auto& entry : tensors_) {
    if (!names.contains(entry.first)) unknown.push_back(entry.first);
  }
  TORCH_CHECK_VALUE(unknown.empty(), folder_.string(), " belongs to another model: it has the ", noun(part_), " ",
                    shown_name(unknown.front()), others(unknown.size()), " that is not wanted here.");
  for (const NamedShard& shard : wanted) {
    const TensorBox& box = pieces(shard.name).front().box;
    TORCH_CHECK_VALUE(box.shape == shard.shard.shape, folder_.string(), " belongs to another model: its ", noun(part_),
                      " ", shown_name(shard.name), " has the shape ", at::IntArrayRef(box.shape), ", not ",
                      at::IntArrayRef(shard.shard.shape), ".");
  }
}

c10::ScalarType CheckpointTensors::dtype(const std::string& name) const {
  return files_[pieces(name).front().file].dtype(name);
}

void CheckpointTensors::read(const NamedShard& wanted) const {
  const TensorBox box = box_of(wanted.shard);
  for (const Piece& piece : pieces(wanted.name)) {
    const SafetensorsFile& file = files_[piece.file];
    copy_box(file.tensor(wanted.name).bytes, file.dtype(wanted.name), piece.box, box, wanted.tensor);
  }
}

}  // namespace optp

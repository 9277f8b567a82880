// The safetensors file that one tensor-parallel rank writes into a training checkpoint.
//
// Its metadata: "format" ("optp-training-checkpoint"), "version", "part" ("parameters" or "optimizer_state"), "rank"
// and "tp" in decimal, and "tensors": JSON that maps each tensor's name to {"shape": of the whole tensor, "start",
// "size"}, each a list with a number for every dimension. Other programs can put the whole together from these alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "src/checkpoint/atomic_file.h"
#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/tensor_box.h"

namespace optp {

/// A tensor to write, and the part of the whole that it is.
struct ShardFileEntry {
  std::string name;
  at::ScalarType dtype = at::ScalarType::Undefined;
  TensorBox box;
  std::function<at::Tensor()> tensor;  ///< of box.size and dtype; called once, when its turn comes
};

/// Writes one file, piece by piece, so that ranks can look after each other in between. Errors are c10::ValueError that
/// names the path and the reason.
class ShardFileWriter {
 public:
  /// The file is `folder`/checkpoint_file_name(part, rank, tp), for this user alone.
  ShardFileWriter(const std::filesystem::path& folder, CheckpointPart part, int64_t rank, int64_t tp,
                  std::vector<ShardFileEntry> entries);

  /// Writes until `deadline`, or until all is on the disk: then it returns true. Call it again otherwise.
  bool write_until(std::chrono::steady_clock::time_point deadline);

  /// Size and checksum of what was written so far; of the whole file once write_until has returned true.
  const CheckpointManifest::File& description() const { return description_; }
  uint64_t final_size() const { return final_size_; }

 private:
  void write(std::string_view bytes);

  CheckpointManifest::File description_;
  std::vector<ShardFileEntry> entries_;
  uint64_t final_size_ = 0;
  std::string header_;  // until it is written
  AtomicFile file_;
  size_t next_entry_ = 0;
  at::Tensor tensor_;  // of the entry before, until all of it is written
  size_t tensor_written_ = 0;
};

/// What the metadata of a shard file says, checked: the parts of whole tensors by name. Throws c10::ValueError that
/// names the file: not a file of `expected`'s part and rank of `tp`, or no sound box for every tensor.
std::map<std::string, TensorBox> read_shard_boxes(const SafetensorsFile& file, const CheckpointManifest::File& expected,
                                                  int64_t tp);

}  // namespace optp

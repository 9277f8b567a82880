// The whole tensors that the files of all tensor-parallel ranks of a checkpoint hold together.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"
#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/tensor_box.h"

namespace optp {

/// Errors are c10::ValueError that names the file, the tensor and what is wrong.
class CheckpointTensors {
 public:
  /// Opens the files of `part` and checks that their tensors make up wholes, without overlap or gap. Reads headers
  /// only.
  CheckpointTensors(const std::filesystem::path& folder, const CheckpointManifest& manifest, CheckpointPart part);

  /// Throws unless `wanted` has every tensor that is stored, in its global shape, and no other.
  void check(const std::vector<NamedShard>& wanted) const;
  c10::ScalarType dtype(const std::string& name) const;
  /// Fills `wanted` with its range, converting floating-point numbers. Touches nothing outside the range.
  void read(const NamedShard& wanted) const;

 private:
  struct Piece {
    size_t file;
    TensorBox box;
  };

  const std::vector<Piece>& pieces(const std::string& name) const;
  void check_pieces(const std::string& name, const std::vector<Piece>& found) const;

  std::filesystem::path folder_;
  CheckpointPart part_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::vector<Piece>> tensors_;
};

/// Compares the checksums of `files` in `folder` with what the manifest says. All ranks of `mesh` share the reading,
/// each with all its threads; collective over mesh.world(). Throws c10::ValueError, on all ranks, that names the first
/// file that differs.
void verify_checksums(const std::filesystem::path& folder, const std::vector<CheckpointManifest::File>& files,
                      const Mesh& mesh);

}  // namespace optp

// checkpoint.json: what a training checkpoint consists of. Trusts nothing that the file says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace optp {

inline constexpr const char* kCheckpointFormat = "optp-training-checkpoint";
/// Read: this and older ones. In every version the manifest is JSON with `format` and `version`, and its last member
/// is the CRC-64 of all bytes before that member.
inline constexpr int64_t kCheckpointVersion = 1;
inline constexpr const char* kCheckpointManifestName = "checkpoint.json";

/// What a file of a checkpoint holds.
enum class CheckpointPart { parameters, optimizer_state };

/// "parameters", "optimizer_state".
const char* checkpoint_part_name(CheckpointPart part);

/// "parameters-00001-of-00002.safetensors": the file of one tensor-parallel rank.
std::string checkpoint_file_name(CheckpointPart part, int64_t rank, int64_t tp);

struct CheckpointManifest {
  struct File {
    std::string name;  ///< a plain name inside the folder
    CheckpointPart part = CheckpointPart::parameters;
    int64_t rank = 0;  ///< tensor-parallel rank whose shards it holds
    uint64_t size = 0;
    uint64_t crc64 = 0;
  };

  int64_t tp = 1;  ///< the mesh that wrote it
  int64_t dp = 1;
  std::string model_config;   ///< JSON; empty: there is none
  std::string trainer_state;  ///< JSON; empty: there is none
  std::vector<File> files;    ///< of each part, one for every tensor-parallel rank in order; or none of optimizer_state

  std::vector<File> files_of(CheckpointPart part) const;
};

/// The text of checkpoint.json. Throws c10::ValueError when model_config or trainer_state is not JSON.
std::string to_json(const CheckpointManifest& manifest);

/// Reads checkpoint.json of `folder`. Throws c10::ValueError, one sentence that names the file and what is wrong: no
/// such file, not JSON, another format, a newer version, one altered bit, or content that cannot be.
CheckpointManifest read_checkpoint_manifest(const std::filesystem::path& folder);

/// Throws c10::ValueError that names the first file of `manifest` which is missing in `folder` or has another size.
void check_checkpoint_files(const CheckpointManifest& manifest, const std::filesystem::path& folder);

/// Whether both pass for `folder`: what a look at a checkpoint shows without reading all of it.
bool has_all_checkpoint_files(const std::filesystem::path& folder);

}  // namespace optp

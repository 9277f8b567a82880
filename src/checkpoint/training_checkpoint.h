// A training checkpoint: a folder with all that a run needs to go on, at the same or another degree of parallelism.
//
//     step-00000100/
//       checkpoint.json                           format, version, mesh, model configuration, trainer state, and the
//       size
//                                                 and checksum of every file (see checkpoint_manifest.h)
//       parameters-00000-of-00002.safetensors     the shards of tensor-parallel rank 0 of 2 (see shard_file.h)
//       parameters-00001-of-00002.safetensors
//       optimizer_state-00000-of-00002.safetensors
//       optimizer_state-00001-of-00002.safetensors
//
// A folder with that name is whole: it is written beside it as `.step-00000100.partial`, flushed to the disk, and
// renamed. Files and folder are for this user alone. Ranks on several hosts need a file system that all of them share.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"

namespace optp {

/// What a rank holds. On every rank the same names in the same order, global shapes and dtypes, and the same texts.
struct CheckpointContent {
  std::string model_config;  ///< text of config.json, or any JSON; may be empty for a model that is not OPT
  std::vector<NamedShard> parameters;
  std::vector<NamedShard> optimizer_state;  ///< names of its own, such as "exp_avg/model.decoder..."; may be empty
  std::string trainer_state;                ///< any JSON; may be empty
};

/// Writes `folder`, replacing a checkpoint of that name in one step once the new one is whole. Collective over
/// mesh.world().
///
/// Of each tensor-parallel rank's files, parameters are written by data rank 0 and optimizer state by data rank 1
/// (where there is one); tensors that are whole on every rank go into the files of tensor-parallel rank 0 alone. The
/// bytes stream from the tensors' own memory. The ranks look after each other while they write, so a slow disk is no
/// missing rank, and what fails on one (a full disk, say) is a c10::ValueError on all that names the rank and the file;
/// then nothing of the new checkpoint is left and older ones are untouched.
void write_training_checkpoint(const std::filesystem::path& folder, const CheckpointContent& content, const Mesh& mesh);

/// A model that is stored elsewhere, to be written as a checkpoint of any degree by a single process.
struct CheckpointSource {
  std::string model_config;
  /// Cut as at the degree to be written; which part, and the tensors, do not matter here.
  std::vector<NamedShard> parameters;
  /// The dtype to write a parameter in.
  std::function<c10::ScalarType(const std::string& name)> dtype;
  /// Fills the tensor, which is of that dtype, with the range that its shard describes.
  std::function<void(const NamedShard& parameter)> read;
};

/// Writes the files of `tp` ranks one after the other. Holds one shard of one parameter in memory at a time.
void write_training_checkpoint(const std::filesystem::path& folder, const CheckpointSource& source, int64_t tp);

/// A checkpoint to read, at any degree: ranks take what they need of every file, whatever mesh wrote it.
///
/// Every byte that is used is verified against its checksum first, once by all ranks together: each reads 1 / world
/// size of the files (as far as possible its own part), so that it costs the world one reading of them. Parameters are
/// verified when the first of them is asked for, optimizer state when that is; the sizes of all files at once.
/// Errors are c10::ValueError: one sentence with the file that is missing, truncated, altered by as little as one bit
/// or of another checkpoint, and the newest older checkpoint beside it that is whole, if there is one.
class TrainingCheckpoint {
 public:
  /// Whether `folder` is one, whole or damaged: a folder with a checkpoint.json.
  static bool recognises(const std::filesystem::path& folder);

  /// With a mesh of several ranks this and load_* are collective over mesh.world(), and all ranks fail or none. Without
  /// one, a single process verifies everything by itself.
  explicit TrainingCheckpoint(std::filesystem::path folder, const Mesh& mesh = Mesh());
  ~TrainingCheckpoint();
  TrainingCheckpoint(TrainingCheckpoint&&) noexcept;
  TrainingCheckpoint(const TrainingCheckpoint&) = delete;
  TrainingCheckpoint& operator=(const TrainingCheckpoint&) = delete;
  TrainingCheckpoint& operator=(TrainingCheckpoint&&) = delete;

  const std::filesystem::path& path() const;
  const std::string& model_config() const;   ///< as written, in a layout of its own; empty: none
  const std::string& trainer_state() const;  ///< likewise
  int64_t tp() const;                        ///< of the mesh that wrote it
  int64_t dp() const;
  bool has_optimizer_state() const;

  /// Fills each parameter with its range of the whole one, converted to the parameter's dtype. All is checked before
  /// the first value is written: every parameter must be there in its global shape, and nothing else may be.
  void load_parameters(const std::vector<NamedShard>& parameters) const;
  void load_optimizer_state(const std::vector<NamedShard>& state) const;

  // One by one, for conversions; the same checks and errors.

  /// Verifies the files of the parameters. Collective; read_parameter calls it the first time.
  void verify_parameters() const;
  /// Throws unless `parameters`, in their global shapes, are what is stored. Their tensors may be undefined.
  void check_parameters(const std::vector<NamedShard>& parameters) const;
  c10::ScalarType parameter_dtype(const std::string& name) const;
  void read_parameter(const NamedShard& parameter) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "step-00000100".
std::string checkpoint_name(int64_t step);

/// The checkpoints in `folder`, which are the folders named like checkpoint_name: newest first, that is by the step.
/// They were whole when they got their names; opening one shows whether it still is. Empty where there is no folder.
std::vector<std::filesystem::path> whole_checkpoints(const std::filesystem::path& folder);

/// Removes all but the newest `keep` checkpoints in `folder` (keep >= 1) and what killed processes left there. If all
/// of those have lost files since, the newest one that has not stays too. A crash in between leaves whole ones only.
void remove_old_checkpoints(const std::filesystem::path& folder, int64_t keep);

/// Removes what killed processes left in `folder`: unfinished checkpoints whose writers are gone. Call it on one rank
/// when a run starts.
void remove_unfinished_checkpoints(const std::filesystem::path& folder);

}  // namespace optp

// The output folder of a run: what lies where, and whose it is.
#pragma once

#include <filesystem>
#include <optional>

namespace optp {

class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path report() const { return path_ / "report.html"; }
  std::filesystem::path options() const { return path_ / "run.json"; }
  std::filesystem::path final_model() const { return path_ / "final"; }

  /// The newest whole checkpoint.
  std::optional<std::filesystem::path> newest_checkpoint() const;

  /// Throws c10::ValueError if the folder holds a run.
  void refuse_other_run() const;

  /// Makes the folder ready for a run, on one rank. Without `resume` it must not hold one. With it, what a run left
  /// that never came to a checkpoint is removed. Throws c10::ValueError, also when nothing can be written there.
  void prepare(bool resume) const;

 private:
  std::filesystem::path path_;
};

}  // namespace optp

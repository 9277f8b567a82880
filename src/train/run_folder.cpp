#include "src/train/run_folder.h"

#include <c10/util/Exception.h>

#include <system_error>
#include <utility>
#include <vector>

#include "src/checkpoint/atomic_file.h"
#include "src/checkpoint/training_checkpoint.h"

namespace optp {

namespace fs = std::filesystem;

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {}

std::optional<fs::path> RunFolder::newest_checkpoint() const {
  const std::vector<fs::path> whole = whole_checkpoints(checkpoints());
  if (whole.empty()) return std::nullopt;
  return whole.front();
}

void RunFolder::refuse_other_run() const {
  for (const fs::path& entry : {options(), metrics(), tensorboard(), checkpoints(), report(), final_model()}) {
    std::error_code ignored;
    TORCH_CHECK_VALUE(!fs::exists(entry, ignored), path_.string(), " holds a run already (", entry.filename().string(),
                      "); use --resume to go on with it, or another --output.");
  }
}

void RunFolder::prepare(bool resume) const {
  if (!resume) refuse_other_run();
  std::error_code error;
  fs::create_directories(path_, error);
  TORCH_CHECK_VALUE(!error, "cannot make the output folder ", path_.string(), ": ", error.message(), ".");
  const AtomicFile probe(path_ / "probe");  // whether files can be made here: before the training that they are for
  fs::create_directories(checkpoints(), error);
  TORCH_CHECK_VALUE(!error, "cannot make the folder ", checkpoints().string(), ": ", error.message(), ".");
  remove_unfinished_checkpoints(checkpoints());
  remove_abandoned_files(path_);
  if (newest_checkpoint()) return;
  for (const fs::path& entry : {metrics(), tensorboard(), report(), final_model()}) fs::remove_all(entry, error);
}

}  // namespace optp

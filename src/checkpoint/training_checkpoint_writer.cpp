#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "parallel/agreement.h"
#include "src/checkpoint/atomic_file.h"
#include "src/checkpoint/atomic_folder.h"
#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/crc64.h"
#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/shard_file.h"
#include "src/checkpoint/training_checkpoint.h"
#include "src/progress.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kWriteSite = "checkpoint write";

// A file that is still to be written.
struct PlannedFile {
  CheckpointPart part;
  int64_t rank;
  std::vector<ShardFileEntry> entries;
};

// The files that one rank writes, one after the other, into a folder that rank 0 has made.
class FileSequence {
 public:
  FileSequence(fs::path folder, int64_t tp, std::deque<PlannedFile> planned)
      : folder_(std::move(folder)), tp_(tp), planned_(std::move(planned)) {
    for (const PlannedFile& file : planned_) {
      for (const ShardFileEntry& entry : file.entries) {
        total_ += c10::multiply_integers(entry.box.size) * static_cast<int64_t>(c10::elementSize(entry.dtype));
      }
    }
  }

  // Goes on until `deadline`, or until all is on the disk: then it returns true.
  bool write_until(Clock::time_point deadline) {
    while (current_ || !planned_.empty()) {
      if (!current_) start_next();
      if (!current_->write_until(deadline)) return false;
      written_.push_back(current_->description());
      finished_ += written_.back().size;
      current_.reset();
    }
    return true;
  }

  const std::vector<CheckpointManifest::File>& written() const { return written_; }

  // Bytes of tensors, all in all and so far.
  int64_t total() const { return total_; }
  int64_t done() const {
    const uint64_t bytes = current_ ? finished_ + current_->description().size : finished_;
    return std::min(total_, static_cast<int64_t>(bytes));
  }

 private:
  void start_next() {
    std::error_code ignored;
    TORCH_CHECK_VALUE(fs::is_directory(folder_, ignored), "there is no ", folder_.string(),
                      ", which rank 0 has made: on several hosts a checkpoint needs a folder that all of them share.");
    PlannedFile next = std::move(planned_.front());
    planned_.pop_front();
    current_.emplace(folder_, next.part, next.rank, tp_, std::move(next.entries));
  }

  fs::path folder_;
  int64_t tp_;
  std::deque<PlannedFile> planned_;
  std::optional<ShardFileWriter> current_;
  std::vector<CheckpointManifest::File> written_;
  int64_t total_ = 0;
  uint64_t finished_ = 0;
};

// The folder that a checkpoint goes to. "a/" is "a", and "." has a name of its own.
fs::path named_folder(const fs::path& folder) {
  fs::path path = folder.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.filename() == "." || path.filename() == "..") path = fs::absolute(path).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path;
}

void check_replaceable(const fs::path& folder) {
  std::error_code ignored;
  const bool replaceable = !fs::exists(folder, ignored) || TrainingCheckpoint::recognises(folder) ||
                           (fs::is_directory(folder, ignored) && fs::is_empty(folder, ignored));
  TORCH_CHECK_VALUE(replaceable, "cannot write the checkpoint ", folder.string(),
                    ": something else has that name; choose another.");
}

// All ranks write until all are done. They meet all the time: then none waits long enough for a slow one to believe
// that it is gone, and none goes on for long when another has failed or died.
void write_together(FileSequence& files, const fs::path& folder, const ProcessGroup& world) {
  constexpr auto kRound = std::chrono::milliseconds(250);
  constexpr int64_t kDone = 0;
  constexpr int64_t kGoesOn = 1;
  constexpr int64_t kFailed = 2;
  Progress progress("write " + folder.string(), files.total(), "bytes");
  while (true) {
    std::exception_ptr error;
    at::Tensor state = at::full({1}, kFailed, at::kLong);
    try {
      state.fill_(files.write_until(Clock::now() + kRound) ? kDone : kGoesOn);
    } catch (...) {
      error = std::current_exception();
    }
    world.all_reduce_(state, kWriteSite, c10d::ReduceOp::MAX);
    const auto most = state.item<int64_t>();
    if (most == kDone) return;
    if (most == kFailed) {
      run_on_all(world, kWriteSite, [&] {
        if (error) std::rethrow_exception(error);
      });
    }
    progress.update(files.done());
  }
}

// What every rank has written, on all ranks, in the manifest's order.
std::vector<CheckpointManifest::File> gather_descriptions(const std::vector<CheckpointManifest::File>& written,
                                                          int64_t tp, const ProcessGroup& world) {
  std::ostringstream text;
  for (const auto& file : written) {
    text << (file.part == CheckpointPart::parameters ? 0 : 1) << ' ' << file.rank << ' ' << file.size << ' '
         << file.crc64 << '\n';
  }
  std::map<std::pair<int, int64_t>, CheckpointManifest::File> files;
  for (const std::string& lines : all_gather_text(text.str(), world, kWriteSite)) {
    std::istringstream stream(lines);
    int part = 0;
    CheckpointManifest::File file;
    while (stream >> part >> file.rank >> file.size >> file.crc64) {
      file.part = part == 0 ? CheckpointPart::parameters : CheckpointPart::optimizer_state;
      file.name = checkpoint_file_name(file.part, file.rank, tp);
      files[{part, file.rank}] = file;
    }
  }
  std::vector<CheckpointManifest::File> ordered;
  for (const auto& entry : files) ordered.push_back(entry.second);
  return ordered;
}

// On rank 0, when all has been written.
void finish(AtomicFolder& folder, const CheckpointManifest& manifest) {
  for (const CheckpointManifest::File& file : manifest.files) {
    std::error_code error;
    const fs::path path = folder.temporary() / file.name;
    const uintmax_t size = fs::file_size(path, error);
    TORCH_CHECK_VALUE(!error && size == file.size, "rank 0 does not see ", path.string(),
                      " as it was written: on several hosts a checkpoint needs a folder that all of them share.");
  }
  const std::string text = to_json(manifest);
  AtomicFile file(folder.temporary() / kCheckpointManifestName, /*mode=*/0600);
  file.write(text.data(), text.size());
  file.commit();
  folder.commit();
}

void write_checkpoint(const fs::path& folder, CheckpointManifest manifest, std::deque<PlannedFile> planned,
                      const ProcessGroup& world) {
  std::optional<AtomicFolder> atomic;  // of rank 0
  try {
    run_on_all(world, kWriteSite, [&] {
      if (world.rank() != 0) return;
      check_replaceable(folder);
      to_json(manifest);  // its texts are JSON
      atomic.emplace(folder);
    });
    FileSequence files(partial_folder_of(folder), manifest.tp, std::move(planned));
    write_together(files, folder, world);
    manifest.files = gather_descriptions(files.written(), manifest.tp, world);
    run_on_all(world, kWriteSite, [&] {
      if (atomic) finish(*atomic, manifest);
    });
  } catch (...) {
    atomic.reset();
    remove_abandoned(folder);  // should rank 0 have died
    throw;
  }
}

ShardFileEntry entry_of(const NamedShard& shard, const Mesh& mesh) {
  const ParameterShard& description = shard.shard;
  TORCH_CHECK_VALUE(shard.tensor.defined() && shard.tensor.sizes() == description.local_shape(), "tensor ",
                    shown_name(shard.name), " does not have the shape ", at::IntArrayRef(description.local_shape()),
                    " of its shard.");
  TORCH_CHECK_VALUE(
      description.replicated() ||
          (description.layout.parts() == mesh.tensor().size() && description.part == mesh.tensor().rank()),
      "tensor ", shown_name(shard.name), " is part ", description.part, " of ", description.layout.parts(),
      ", which does not belong to tensor-parallel rank ", mesh.tensor().rank(), " of ", mesh.tensor().size(), ".");
  return {shard.name, shard.tensor.scalar_type(), box_of(description), [tensor = shard.tensor] { return tensor; }};
}

// Shards that do not fit together would make a checkpoint that nobody can read.
void check_agreement(const CheckpointContent& content, const ProcessGroup& world) {
  std::ostringstream text;
  for (const auto* list : {&content.parameters, &content.optimizer_state}) {
    for (const NamedShard& shard : *list) {
      text << shard.name << '\0' << shard.tensor.scalar_type() << shard.shard.shape << shard.shard.dim.value_or(-1)
           << ' ' << shard.shard.layout.range(0).size << '\n';
    }
    text << '\n';
  }
  const std::vector<std::string> all = all_gather_text(crc64_text(crc64(text.str())), world, kWriteSite);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    TORCH_CHECK_VALUE(all[rank] == all[0], "cannot write a checkpoint: rank ", rank,
                      " has other tensors than rank 0, or cuts them otherwise.");
  }
}

}  // namespace

void write_training_checkpoint(const fs::path& folder, const CheckpointContent& content, const Mesh& mesh) {
  const int64_t tensor_rank = mesh.tensor().rank();
  std::vector<PlannedFile> parts = {{CheckpointPart::parameters, tensor_rank, {}},
                                    {CheckpointPart::optimizer_state, tensor_rank, {}}};
  run_on_all(mesh.world(), kWriteSite, [&] {
    for (PlannedFile& part : parts) {
      const auto& shards = part.part == CheckpointPart::parameters ? content.parameters : content.optimizer_state;
      for (const NamedShard& shard : shards) {
        ShardFileEntry entry = entry_of(shard, mesh);
        if (tensor_rank == 0 || !shard.shard.replicated()) part.entries.push_back(std::move(entry));
      }
    }
  });
  check_agreement(content, mesh.world());
  std::deque<PlannedFile> mine;
  if (mesh.data().rank() == 0) mine.push_back(std::move(parts[0]));
  if (mesh.data().rank() == 1 % mesh.data().size() && !content.optimizer_state.empty()) {
    mine.push_back(std::move(parts[1]));
  }
  const CheckpointManifest manifest{
      mesh.tensor().size(), mesh.data().size(), content.model_config, content.trainer_state, {}};
  write_checkpoint(named_folder(folder), manifest, std::move(mine), mesh.world());
}

void write_training_checkpoint(const fs::path& folder, const CheckpointSource& source, int64_t tp) {
  std::deque<PlannedFile> planned;
  for (int64_t rank = 0; rank < tp; ++rank) {
    planned.push_back({CheckpointPart::parameters, rank, {}});
    for (NamedShard parameter : source.parameters) {
      ParameterShard& shard = parameter.shard;
      TORCH_CHECK_VALUE(shard.replicated() || shard.layout.parts() == tp, "parameter ", shown_name(parameter.name),
                        " is cut into ", shard.layout.parts(), " parts, not into ", tp, ".");
      if (rank > 0 && shard.replicated()) continue;
      shard.part = rank;
      const at::ScalarType dtype = source.dtype(parameter.name);
      planned.back().entries.push_back({parameter.name, dtype, box_of(shard), [parameter, dtype, read = source.read] {
                                          NamedShard filled = parameter;
                                          filled.tensor = at::empty(filled.shard.local_shape(), dtype);
                                          read(filled);
                                          return filled.tensor;
                                        }});
    }
  }
  const CheckpointManifest manifest{tp, 1, source.model_config, "", {}};
  write_checkpoint(named_folder(folder), manifest, std::move(planned), ProcessGroup());
}

}  // namespace optp

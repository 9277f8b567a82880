#include "src/checkpoint/training_checkpoint.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <optional>
#include <system_error>
#include <utility>

#include "parallel/agreement.h"
#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/checkpoint_tensors.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReadSite = "checkpoint read";

// The newest checkpoint that is older than `folder`, in the same place.
std::optional<fs::path> older_whole_checkpoint(const fs::path& folder) {
  bool older = false;
  for (const fs::path& candidate : whole_checkpoints(folder.has_parent_path() ? folder.parent_path() : ".")) {
    if (older && has_all_checkpoint_files(candidate)) return candidate;
    older = older || candidate.filename() == folder.filename();
  }
  return std::nullopt;
}

}  // namespace

struct TrainingCheckpoint::State {
  fs::path folder;
  Mesh mesh;
  CheckpointManifest manifest;
  std::optional<CheckpointTensors> parameters;  // verified as soon as they are there
  std::optional<CheckpointTensors> optimizer_state;

  // Runs `work`; to a damage that it finds the sentence adds what else there is.
  template <typename Work>
  void find_damage(const Work& work) const {
    try {
      work();
    } catch (const c10::ValueError& error) {
      const std::optional<fs::path> older = older_whole_checkpoint(folder);
      if (!older) throw;
      std::string message = error.what_without_backtrace();
      if (message.ends_with('.')) message.pop_back();
      C10_THROW_ERROR(ValueError,
                      c10::str(message, "; the newest older checkpoint that is whole is ", older->string(), "."));
    }
  }

  const CheckpointTensors& verified(CheckpointPart part) {
    std::optional<CheckpointTensors>& tensors = part == CheckpointPart::parameters ? parameters : optimizer_state;
    if (tensors) return *tensors;
    find_damage([&] {
      verify_checksums(folder, manifest.files_of(part), mesh);
      run_on_all(mesh.world(), kReadSite, [&] { tensors.emplace(folder, manifest, part); });
    });
    return *tensors;
  }

  void load(CheckpointPart part, const std::vector<NamedShard>& wanted) {
    const CheckpointTensors& tensors = verified(part);
    run_on_all(mesh.world(), kReadSite, [&] { tensors.check(wanted); });
    run_on_all(mesh.world(), kReadSite, [&] {
      for (const NamedShard& shard : wanted) tensors.read(shard);
    });
  }
};

bool TrainingCheckpoint::recognises(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / kCheckpointManifestName, ignored);
}

TrainingCheckpoint::TrainingCheckpoint(fs::path folder, const Mesh& mesh) : state_(std::make_unique<State>()) {
  if (!folder.has_filename()) folder = folder.parent_path();  // "folder/"
  state_->folder = std::move(folder);
  state_->mesh = mesh;
  state_->find_damage([&] {
    run_on_all(mesh.world(), kReadSite, [&] {
      state_->manifest = read_checkpoint_manifest(state_->folder);
      check_checkpoint_files(state_->manifest, state_->folder);
    });
  });
}

TrainingCheckpoint::~TrainingCheckpoint() = default;
TrainingCheckpoint::TrainingCheckpoint(TrainingCheckpoint&&) noexcept = default;

const fs::path& TrainingCheckpoint::path() const { return state_->folder; }
const std::string& TrainingCheckpoint::model_config() const { return state_->manifest.model_config; }
const std::string& TrainingCheckpoint::trainer_state() const { return state_->manifest.trainer_state; }
int64_t TrainingCheckpoint::tp() const { return state_->manifest.tp; }
int64_t TrainingCheckpoint::dp() const { return state_->manifest.dp; }
bool TrainingCheckpoint::has_optimizer_state() const {
  return !state_->manifest.files_of(CheckpointPart::optimizer_state).empty();
}

void TrainingCheckpoint::load_parameters(const std::vector<NamedShard>& parameters) const {
  state_->load(CheckpointPart::parameters, parameters);
}

void TrainingCheckpoint::load_optimizer_state(const std::vector<NamedShard>& state) const {
  state_->load(CheckpointPart::optimizer_state, state);
}

void TrainingCheckpoint::verify_parameters() const { state_->verified(CheckpointPart::parameters); }

void TrainingCheckpoint::check_parameters(const std::vector<NamedShard>& parameters) const {
  state_->verified(CheckpointPart::parameters).check(parameters);
}

c10::ScalarType TrainingCheckpoint::parameter_dtype(const std::string& name) const {
  return state_->verified(CheckpointPart::parameters).dtype(name);
}

void TrainingCheckpoint::read_parameter(const NamedShard& parameter) const {
  state_->verified(CheckpointPart::parameters).read(parameter);
}

}  // namespace optp

// The loop of a training run: steps, evaluations, checkpoints, until the end or a stop.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/gradients.h"
#include "src/train/run_folder.h"
#include "src/train/run_recorder.h"
#include "src/train/trainer.h"
#include "src/train/trainer_state.h"
#include "src/train/training_step.h"

namespace optp {

/// What a trainer holds between runs.
struct TrainingSetup {
  std::shared_ptr<torch::nn::Module> module;
  LossFunction loss_sum;
  Mesh mesh;
  TrainerOptions options;
  std::string model_config;  ///< goes into checkpoints; may be empty
  std::vector<NamedShard> parameters;
  std::unique_ptr<Gradients> gradients;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<std::function<void()>> start_callbacks;
  std::vector<std::function<void(const StepMetrics&)>> step_callbacks;
  std::vector<std::function<void(const std::filesystem::path&)>> checkpoint_callbacks;
  std::function<int()> stop_request = [] { return 0; };
  std::function<TextSample()> write_sample;  ///< may be empty

  /// What `stop_request` answers on the rank where it is largest. Collective.
  int agreed_stop() const;
  /// Examples that a copy takes through the model at once.
  int64_t rows() const;
};

/// How a run is laid out over a training set.
struct RunLength {
  int64_t steps_per_epoch = 0;
  int64_t total_steps = 0;
};

/// Throws c10::ValueError for options that do not fit each other, the mesh or the set.
RunLength run_length(const TrainerOptions& options, const Mesh& mesh, const TrainingSet& train);

/// One call of Trainer::fit. Collective throughout.
class TrainingRun {
 public:
  TrainingRun(TrainingSetup& setup, const TrainingSet& train, const TrainingSet* validation);

  TrainingResult run();

 private:
  void begin();
  void open_output();
  void load(const std::filesystem::path& path);
  StepMetrics take_step();
  std::optional<double> evaluate();
  void conclude_step(StepMetrics metrics);
  void sample();
  void save();
  void give_up_after_skips();
  bool due(int64_t every) const;
  double seconds() const;

  TrainingSetup& setup_;
  const TrainingSet& train_;
  const TrainingSet* validation_;
  RunLength length_;
  Schedule schedule_;
  TrainingStep step_;
  RunFolder folder_;
  TrainerState state_;
  std::optional<RunRecorder> recorder_;  // on the rank that records
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  int64_t saved_step_ = -1;
  int64_t sampled_step_ = -1;
  int stop_code_ = 0;
  std::optional<StepMetrics> last_;
};

}  // namespace optp

// Everything that a run leaves in its folder while it goes on, except checkpoints.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "src/train/metrics.h"
#include "src/train/run_folder.h"
#include "src/train/tensorboard.h"
#include "src/train/trainer_options.h"
#include "src/train/training_report.h"

namespace optp {

/// Used by one rank. Errors are c10::ValueError.
class RunRecorder {
 public:
  /// Goes on after `last_step`: what the folder holds of later steps is dropped.
  RunRecorder(const RunFolder& folder, int64_t last_step, int64_t total_steps, const RunDescription& description);

  /// The last step that was recorded before this object was made.
  std::optional<StepMetrics> last() const { return report_.last; }

  void record(const StepMetrics& metrics);
  /// Puts what the model wrote on the page, in place of what it wrote before.
  void show_sample(const std::string& prompt, const std::string& text);

  /// Writes the page; `seconds` as in TrainingReport. While the run goes on, call it as often as convenient.
  void write_report(TrainingState state, const std::string& remark, double seconds);
  /// The same while the run goes on, and only when the page is old enough.
  void refresh_report(double seconds);

 private:
  RunFolder folder_;
  MetricsFile metrics_;
  TensorBoardWriter tensorboard_;
  TrainingReport report_;
  std::chrono::steady_clock::time_point written_;
};

}  // namespace optp

// The page of a training run, report.html: how far it is, its curves, its configuration.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/train/curve.h"
#include "src/train/metrics.h"

namespace optp {

/// The curves of a run.
struct TrainingCurves {
  Curve loss, val_loss, lr, grad_norm, tokens_per_second, peak_rss_bytes;
  Curve comm_share;  ///< comm_seconds / step_seconds

  void add(const StepMetrics& metrics);
};

enum class TrainingState { running, finished, stopped };

struct TrainingReport {
  std::string model;  ///< as the user named it
  TrainingState state = TrainingState::running;
  std::string remark;               ///< why it stopped, or what to know; may be empty
  int64_t total_steps = 0;          ///< that the run is meant to take
  std::optional<StepMetrics> last;  ///< of the last step taken; none yet: absent
  int64_t skipped_steps = 0;        ///< of the run so far
  double seconds = 0;               ///< spent on training so far, in all sessions
  TrainingCurves curves;
  std::vector<std::pair<std::string, std::string>> facts;    ///< model, data, mesh, machine: name, value
  std::vector<std::pair<std::string, std::string>> options;  ///< the run's complete options: name, value
  std::string sample_prompt;                                 ///< what the sample continues
  std::string sample;  ///< text that the model generated, line breaks kept; empty: none
};

/// One page that needs nothing else: no script, no other file. Its markup is well-formed XML but for the first line.
std::string training_report_html(const TrainingReport& report);

}  // namespace optp

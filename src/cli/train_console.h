// What `optp train` says about its steps on standard error.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "src/progress.h"
#include "src/train/metrics.h"

namespace optp::cli {

/// On a terminal a bar with loss, tokens a second and time left; elsewhere lines like "step 120/300  loss 4.213  lr
/// 0.000831  grad norm 1.07  5.21k tokens/s  2 min 04 s left". What an evaluation found is a line in both.
class TrainConsole {
 public:
  /// `log_every`: steps from one line to the next; 0: none.
  TrainConsole(int64_t total_steps, int64_t log_every);

  void show(const StepMetrics& metrics);

 private:
  void update_bar(const StepMetrics& metrics);
  void print_line(const StepMetrics& metrics);

  int64_t total_steps_;
  int64_t log_every_;
  bool on_terminal_;
  std::optional<Progress> bar_;
  std::deque<double> step_seconds_;  // of the latest steps, for the time left
};

}  // namespace optp::cli

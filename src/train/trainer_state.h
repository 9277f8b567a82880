// What a checkpoint knows of a run besides weights and optimizer state.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "src/train/metrics.h"

namespace optp {

/// Which run it is: name -> value. A run is resumed only where all of them are what they were.
using RunIdentity = std::map<std::string, std::string>;

struct TrainerState {
  int64_t step = 0;    ///< taken so far
  int64_t tokens = 0;  ///< trained on so far
  int64_t skipped_steps = 0;
  int64_t skipped_in_a_row = 0;
  double seconds = 0;  ///< spent so far, in all sessions
  /// The last step, where a stop has kept it from its evaluation: that is done when the run goes on.
  std::optional<StepMetrics> to_evaluate;
  RunIdentity identity;
};

std::string to_json(const TrainerState& state);

/// Throws c10::ValueError for a text that is no state; `source` stands in the message.
TrainerState trainer_state_from_json(const std::string& text, const std::string& source);

/// Throws c10::ValueError that names the first thing in which the run differs from the one of the checkpoint `source`.
void check_identity(const RunIdentity& run, const RunIdentity& checkpoint, const std::string& source);

}  // namespace optp

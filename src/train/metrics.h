// metrics.jsonl: what each optimizer step measured, one JSON object a line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/train/append_file.h"

namespace optp {

struct StepMetrics {
  int64_t step = 0;                ///< from 1
  double loss = 0;                 ///< mean over the tokens of the step, those of all copies
  double lr = 0;                   ///< learning rate used in the step
  double grad_norm = 0;            ///< of all gradients together, before clipping
  int64_t tokens = 0;              ///< trained on so far, this step's included
  double tokens_per_second = 0;    ///< of all copies
  double step_seconds = 0;         ///< without evaluation and checkpoint
  double comm_seconds = 0;         ///< of step_seconds, spent waiting for other ranks
  int64_t peak_rss_bytes = 0;      ///< largest resident memory so far of the rank that has the most
  bool skipped = false;            ///< the loss or a gradient was not finite: the weights stayed as they were
  std::optional<double> val_loss;  ///< mean over the tokens of the validation data, where evaluated after the step

  /// exp(val_loss).
  std::optional<double> val_perplexity() const;
};

/// One line without its newline. Keys are the fields' names, and `val_perplexity`; `val_loss`, `val_perplexity` and
/// `skipped` stand there only where they say something. Numbers that JSON lacks (NaN, infinity) become null.
std::string metrics_line(const StepMetrics& metrics);

/// The reverse. Throws nlohmann::json::exception for a text that is no such line.
StepMetrics parse_metrics(const std::string& text);

/// The file of a run.
class MetricsFile {
 public:
  /// Opens `path`, or makes it. Lines of steps after `last_step`, and a line that a killed process left unfinished, are
  /// dropped; history() holds the rest. Throws c10::ValueError for a line that is something else.
  MetricsFile(const std::filesystem::path& path, int64_t last_step);

  /// What the file held when it was opened.
  const std::vector<StepMetrics>& history() const { return history_; }

  void append(const StepMetrics& metrics);

 private:
  std::vector<StepMetrics> history_;
  AppendFile file_;
};

}  // namespace optp

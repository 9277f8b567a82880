#include "src/cli/train_console.h"

#include <unistd.h>

#include <cstdio>
#include <numeric>
#include <string>

#include "src/log.h"
#include "src/progress.h"
#include "src/train/units.h"

namespace optp::cli {
namespace {

std::string four_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

}  // namespace

TrainConsole::TrainConsole(int64_t total_steps, int64_t log_every)
    : total_steps_(total_steps), log_every_(log_every), on_terminal_(::isatty(STDERR_FILENO) == 1) {}

void TrainConsole::show(const StepMetrics& metrics) {
  if (metrics.val_loss) {
    log_line(LogLevel::info, "step " + std::to_string(metrics.step) + "/" + std::to_string(total_steps_) +
                                 "  validation loss " + four_digits(*metrics.val_loss) + ", perplexity " +
                                 four_digits(*metrics.val_perplexity()));
  }
  on_terminal_ ? update_bar(metrics) : print_line(metrics);
}

void TrainConsole::update_bar(const StepMetrics& metrics) {
  const int64_t step_tokens = metrics.tokens / metrics.step;
  if (!bar_) bar_.emplace("training", step_tokens * total_steps_, "tokens", metrics.tokens - step_tokens);
  bar_->update(metrics.tokens, "step " + std::to_string(metrics.step) + ", loss " + four_digits(metrics.loss));
  if (metrics.step == total_steps_) bar_.reset();
}

void TrainConsole::print_line(const StepMetrics& metrics) {
  constexpr size_t kWindow = 50;
  step_seconds_.push_back(metrics.step_seconds);
  if (step_seconds_.size() > kWindow) step_seconds_.pop_front();
  const double mean =
      std::accumulate(step_seconds_.begin(), step_seconds_.end(), 0.0) / static_cast<double>(step_seconds_.size());
  const bool last = metrics.step == total_steps_;
  if (log_every_ == 0 || (metrics.step != 1 && metrics.step % log_every_ != 0 && !last)) return;
  std::string line = "step " + std::to_string(metrics.step) + "/" + std::to_string(total_steps_) + "  loss " +
                     four_digits(metrics.loss) + "  lr " + four_digits(metrics.lr) + "  grad norm " +
                     four_digits(metrics.grad_norm) + "  " + count_text(metrics.tokens_per_second) + " tokens/s";
  if (!last) line += "  " + duration_text(mean * static_cast<double>(total_steps_ - metrics.step)) + " left";
  log_line(LogLevel::info, line);
}

}  // namespace optp::cli

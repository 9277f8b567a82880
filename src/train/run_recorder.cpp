#include "src/train/run_recorder.h"

#include <utility>
#include <vector>

#include "src/checkpoint/atomic_file.h"

namespace optp {

RunRecorder::RunRecorder(const RunFolder& folder, int64_t last_step, int64_t total_steps,
                         const RunDescription& description)
    : folder_(folder), metrics_(folder.metrics(), last_step), tensorboard_(folder.tensorboard(), last_step + 1) {
  report_.model = description.title;
  report_.facts = description.facts;
  report_.options = description.options;
  report_.total_steps = total_steps;
  for (const StepMetrics& metrics : metrics_.history()) {
    report_.curves.add(metrics);
    report_.skipped_steps += metrics.skipped ? 1 : 0;
    report_.last = metrics;
  }
}

void RunRecorder::record(const StepMetrics& metrics) {
  metrics_.append(metrics);
  std::vector<std::pair<std::string, double>> scalars = {
      {"train/loss", metrics.loss},
      {"train/learning_rate", metrics.lr},
      {"train/grad_norm", metrics.grad_norm},
      {"speed/tokens_per_second", metrics.tokens_per_second},
      {"speed/step_seconds", metrics.step_seconds},
      {"speed/comm_seconds", metrics.comm_seconds},
      {"memory/peak_rss_bytes", static_cast<double>(metrics.peak_rss_bytes)}};
  if (metrics.val_loss) {
    scalars.emplace_back("validation/loss", *metrics.val_loss);
    scalars.emplace_back("validation/perplexity", *metrics.val_perplexity());
  }
  tensorboard_.add_scalars(metrics.step, scalars);
  report_.curves.add(metrics);
  report_.skipped_steps += metrics.skipped ? 1 : 0;
  report_.last = metrics;
}

void RunRecorder::show_sample(const std::string& prompt, const std::string& text) {
  report_.sample_prompt = prompt;
  report_.sample = text;
}

void RunRecorder::write_report(TrainingState state, const std::string& remark, double seconds) {
  report_.state = state;
  report_.remark = remark;
  report_.seconds = seconds;
  const std::string page = training_report_html(report_);
  AtomicFile file(folder_.report());
  file.write(page.data(), page.size());
  file.commit();
  written_ = std::chrono::steady_clock::now();
}

void RunRecorder::refresh_report(double seconds) {
  constexpr auto kReportAge = std::chrono::seconds(10);
  if (std::chrono::steady_clock::now() - written_ < kReportAge) return;
  write_report(TrainingState::running, "", seconds);
}

}  // namespace optp

// metrics.jsonl as a run that is resumed finds it: what is kept are whole lines of steps before, and the rest goes; a
// file that is refused stays as it was. The page that shows the run can be made of it.
#include "src/train/metrics.h"
#include "src/train/training_report.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

constexpr int64_t kLastStep = 3;

// The lines of the history, as a run would write them.
std::string lines_of(const std::vector<StepMetrics>& history) {
  std::string text;
  for (const StepMetrics& metrics : history) text += metrics_line(metrics) + "\n";
  return text;
}

// The page of the run has its curves, whatever the numbers are.
void draw(const std::vector<StepMetrics>& history) {
  TrainingReport report{.model = "opt-tiny", .total_steps = kLastStep};
  for (const StepMetrics& metrics : history) {
    report.curves.add(metrics);
    report.last = metrics;
  }
  constexpr size_t kLargestPage = 1 << 20;
  expect(training_report_html(report).size() < kLargestPage);
}

void check_metrics(const FuzzFolder& folder, std::string_view bytes) {
  const std::filesystem::path path = folder.write("metrics.jsonl", bytes);
  std::vector<StepMetrics> history;
  if (!accepts([&] { history = MetricsFile(path, kLastStep).history(); })) {
    expect(read_file(path) == bytes);
    return;
  }
  for (const StepMetrics& metrics : history) expect(metrics.step >= 0 && metrics.step <= kLastStep);
  draw(history);
  const std::string kept = read_file(path);
  expect(kept.size() <= bytes.size() && (kept.empty() || kept.ends_with('\n')));
  expect(lines_of(MetricsFile(path, kLastStep).history()) == lines_of(history) && read_file(path) == kept);

  MetricsFile(path, kLastStep).append({.step = kLastStep + 1});
  expect(read_file(path) == kept + metrics_line({.step = kLastStep + 1}) + "\n");
  MetricsFile(path, kLastStep);
  expect(read_file(path) == kept);

  // What was read is what the run would have written.
  folder.write("metrics.jsonl", lines_of(history));
  expect(lines_of(MetricsFile(path, kLastStep).history()) == lines_of(history));
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const optp::FuzzFolder folder;
  return optp::fuzz(data, size, [](std::string_view bytes) { optp::check_metrics(folder, bytes); });
}

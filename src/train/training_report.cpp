#include "src/train/training_report.h"

#include <cmath>
#include <cstdio>
#include <sstream>

#include "src/progress.h"
#include "src/train/chart.h"
#include "src/train/units.h"
#include "src/verify/report_style.h"
#include "src/verify/report_words.h"

namespace optp {
namespace {

const char* const kTrainingStyle = R"css(
:root { --run: #2459c9; --run-back: #e8effc; --stop: #8a5300; --stop-back: #fdf1dd; }
@media (prefers-color-scheme: dark) {
  :root { --run: #7ca6ff; --run-back: #172642; --stop: #f0b45b; --stop-back: #38290f; }
}
.hero.running { color: var(--run); background: var(--run-back); }
.hero.stopped { color: var(--stop); background: var(--stop-back); }
.bar { height: .6rem; margin: .9rem 0 0; border-radius: 99px; background: var(--track); overflow: hidden; }
.bar > div { height: 100%; border-radius: 99px; background: currentColor; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1rem; margin-top: 1rem; }
.tile { margin: 0; padding: .8rem 1rem; }
.tile p:first-child { color: var(--soft); font-size: .88rem; }
.tile p + p { font-size: 1.4rem; font-weight: 650; line-height: 1.3; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { margin: .75rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .95rem/1.55 ui-monospace, SFMono-Regular,
  Menlo, Consolas, monospace; }
pre mark { color: inherit; background: var(--track); border-radius: 4px; }
details { margin-top: 1rem; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: 700; }
.options dt, .options dd { font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 46rem) { .tiles { grid-template-columns: 1fr 1fr; gap: .6rem; } .tile p + p { font-size: 1.2rem; }
  .tile:last-child:nth-child(odd) { grid-column: 1 / -1; } .charts { gap: .75rem; } }
)css";

std::string number_with(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string loss_text(double value) { return number_with("%.4g", value); }
std::string share_text(double value) { return number_with("%.3g", 100 * value) + " %"; }

// Text with its line breaks, the rest cleaned and escaped.
std::string escaped_lines(const std::string& text) {
  std::string escaped;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) escaped += escape_markup(line) + (lines.eof() ? "" : "\n");
  return escaped;
}

std::string html_tile(const std::string& name, const std::string& value) {
  return "<div class=\"card tile\"><p>" + name + "</p><p>" + escape_markup(value) + "</p></div>\n";
}

std::string html_pairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string html;
  for (const auto& [name, value] : pairs) {
    html += "<dt>" + escape_markup(name) + "</dt><dd>" + escape_markup(value) + "</dd>\n";
  }
  return html;
}

std::string state_word(TrainingState state) {
  return state == TrainingState::running ? "Training" : state == TrainingState::finished ? "Trained" : "Stopped";
}

std::string html_state(const TrainingReport& report) {
  const int64_t step = report.last ? report.last->step : 0;
  const char* style = report.state == TrainingState::running    ? "running"
                      : report.state == TrainingState::finished ? "pass"
                                                                : "stopped";
  const double share = report.total_steps == 0 ? 0 : static_cast<double>(step) / report.total_steps;
  std::string html = std::string("<section class=\"card hero ") + style + "\">\n<p class=\"verdict\">" +
                     state_word(report.state) + "</p>\n<p>Step " + std::to_string(step) + " of " +
                     std::to_string(report.total_steps) + "</p>\n<p>" + escape_markup(report.model) + "</p>\n";
  if (!report.remark.empty()) html += "<p>" + escape_markup(report.remark) + "</p>\n";
  if (report.skipped_steps > 0) {
    html += "<p>" + std::to_string(report.skipped_steps) + (report.skipped_steps == 1 ? " step was" : " steps were") +
            " skipped: the loss or a gradient was not finite.</p>\n";
  }
  html +=
      "<div class=\"bar\"><div style=\"width:" + number_with("%.1f", 100 * share) + "%\"></div></div>\n</section>\n";
  if (!report.last) return html;

  html += "<div class=\"tiles\">\n" + html_tile("Loss", loss_text(report.curves.loss.last()));
  if (!report.curves.val_loss.empty()) {
    html += html_tile("Validation perplexity", loss_text(std::exp(report.curves.val_loss.last())));
  }
  return html + html_tile("Tokens", count_text(static_cast<double>(report.last->tokens))) +
         html_tile("Tokens a second", count_text(report.curves.tokens_per_second.median())) +
         html_tile("Time", duration_text(report.seconds)) + "</div>\n";
}

std::string html_charts(const TrainingReport& report) {
  const TrainingCurves& curves = report.curves;
  const double last_step = report.last ? static_cast<double>(report.last->step) : 1;
  std::vector<Chart> charts;
  charts.push_back({.title = "Loss",
                    .series = {{"training", &curves.loss, "first"}, {"validation", &curves.val_loss, "second", true}},
                    .value_text = loss_text});
  charts.push_back(
      {.title = "Learning rate", .series = {{"now", &curves.lr, "first"}}, .value_text = loss_text, .from_zero = true});
  charts.push_back({.title = "Gradient norm",
                    .series = {{"now", &curves.grad_norm, "first"}},
                    .value_text = loss_text,
                    .from_zero = true,
                    .log_if_wide = true,
                    .note = "of all gradients together, before clipping"});
  charts.push_back({.title = "Throughput",
                    .series = {{"tokens a second", &curves.tokens_per_second, "first"}},
                    .value_text = count_text,
                    .from_zero = true});
  charts.push_back({.title = "Memory",
                    .series = {{"peak", &curves.peak_rss_bytes, "first"}},
                    .value_text = memory_text,
                    .from_zero = true,
                    .binary = true,
                    .note = "resident memory of the rank that has the most"});
  charts.push_back({.title = "Communication",
                    .series = {{"now", &curves.comm_share, "first"}},
                    .value_text = share_text,
                    .from_zero = true,
                    .note = "share of a step spent waiting for other ranks"});
  std::string html = "<div class=\"charts\">\n";
  for (const Chart& chart : charts) {
    html += std::string("<figure class=\"card") + (&chart == &charts.front() ? " wide" : "") + "\">" +
            chart_html(chart, 1, last_step) + "</figure>\n";
  }
  return html + "</div>\n";
}

std::string html_sample(const TrainingReport& report) {
  if (report.sample.empty()) return "";
  std::string html = "<section class=\"card\"><h2>A sample</h2>\n";
  if (!report.sample_prompt.empty()) html += "<p class=\"note\">The model went on from the marked text.</p>\n";
  html += "<pre>";
  if (!report.sample_prompt.empty()) html += "<mark>" + escaped_lines(report.sample_prompt) + "</mark>";
  return html + escaped_lines(report.sample) + "</pre></section>\n";
}

}  // namespace

void TrainingCurves::add(const StepMetrics& metrics) {
  loss.add(metrics.step, metrics.loss);
  if (metrics.val_loss) val_loss.add(metrics.step, *metrics.val_loss);
  lr.add(metrics.step, metrics.lr);
  grad_norm.add(metrics.step, metrics.grad_norm);
  tokens_per_second.add(metrics.step, metrics.tokens_per_second);
  peak_rss_bytes.add(metrics.step, static_cast<double>(metrics.peak_rss_bytes));
  comm_share.add(metrics.step, metrics.comm_seconds / metrics.step_seconds);
}

std::string training_report_html(const TrainingReport& report) {
  const std::string title = state_word(report.state) + ": " + report.model;
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
         "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
         "<title>" +
         escape_markup(title) + "</title>\n<style>" + kReportStyle + kChartStyle + kTrainingStyle +
         "</style>\n</head>\n<body>\n<main>\n<h1>OPT training report</h1>\n" + html_state(report) +
         html_charts(report) + html_sample(report) + "<section class=\"card\"><h2>This run</h2>\n<dl>\n" +
         html_pairs(report.facts) + "</dl></section>\n<details class=\"card\"><summary>Options</summary>\n" +
         "<dl class=\"options\">\n" + html_pairs(report.options) + "</dl></details>\n</main>\n</body>\n</html>\n";
}

}  // namespace optp

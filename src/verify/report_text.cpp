#include <algorithm>
#include <array>

#include "src/verify/report.h"
#include "src/verify/report_words.h"

namespace optp {
namespace {

constexpr size_t kTextWidth = 100;
constexpr std::string_view kTextTitle = "OPT tensor parallelism: verification report";

// Characters, not bytes: what a column of text is wide.
size_t text_width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// The bytes of the first `width` characters.
size_t text_prefix(std::string_view text, size_t width) {
  size_t bytes = 0;
  while (bytes < text.size() && text_width(text.substr(0, bytes + 1)) <= width) ++bytes;
  return bytes;
}

// `text` as lines of at most `width` characters, broken at spaces, and inside a word only when it alone is longer.
std::vector<std::string> text_lines(std::string_view text, size_t width) {
  const std::string clean = clean_line(text);
  std::vector<std::string> lines = {""};
  for (size_t begin = 0, end = 0; begin < clean.size(); begin = end + 1) {
    end = std::min(clean.find(' ', begin), clean.size());
    std::string_view word = std::string_view(clean).substr(begin, end - begin);
    if (word.empty()) continue;
    if (!lines.back().empty() && text_width(lines.back()) + 1 + text_width(word) > width) lines.emplace_back();
    while (text_width(word) > width) {
      const size_t fits = text_prefix(word, width);
      lines.back() = word.substr(0, fits);
      lines.emplace_back();
      word.remove_prefix(fits);
    }
    lines.back() += (lines.back().empty() ? "" : " ") + std::string(word);
  }
  return lines;
}

std::string text_left(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, text_width(text)), ' ');
}

std::string text_right(const std::string& text, size_t width) {
  return std::string(width - std::min(width, text_width(text)), ' ') + text;
}

// `label` in its column of `indent` characters, the text wrapped to its right.
std::string text_block(const std::string& label, size_t indent, std::string_view text) {
  std::string block;
  for (const std::string& line : text_lines(text, kTextWidth - indent)) {
    block += text_left(block.empty() ? label : "", indent) + line + "\n";
  }
  return block;
}

std::string text_heading(const std::string& text, char underline) {
  return text + "\n" + std::string(text_width(text), underline) + "\n";
}

// A table's columns to the right of `what`.
using TextCells = std::array<std::string, 5>;
const std::array<TextCells, 2> kTextHead = {
    {{"largest", "largest", "", "", ""}, {"absolute", "relative", "value", "limit", "verdict"}}};

TextCells text_cells(const Measurement& measurement) {
  return {difference_text(measurement.max_abs_difference), difference_text(measurement.max_rel_difference),
          value_text(measurement), limit_text(measurement), std::string(verdict_word(measurement.passed))};
}

// One set of widths for all tables, so that a report's columns stand under each other.
struct TextColumns {
  std::array<size_t, 5> widths{};
  size_t what = 0;

  explicit TextColumns(const VerifyReport& report) {
    for (const TextCells& cells : kTextHead) fit(cells);
    size_t longest = text_width("what");
    for (const CheckResult& check : report.checks) {
      for (const Measurement& measurement : check.measurements) {
        fit(text_cells(measurement));
        longest = std::max(longest, text_width(clean_line(measurement.what)));
      }
    }
    size_t taken = 2;
    for (const size_t width : widths) taken += 2 + width;
    what = std::min(longest, kTextWidth - taken);
  }

  // "> " in front marks a row that failed.
  std::string row(std::string_view text, const TextCells& cells, bool marked) const {
    std::vector<std::string> lines = text_lines(text, what);
    std::string row = (marked ? "> " : "  ") + text_left(lines.front(), what);
    for (size_t i = 0; i < cells.size(); ++i) row += "  " + text_right(cells[i], widths[i]);
    row = row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
    for (size_t i = 1; i < lines.size(); ++i) row += "  " + lines[i] + "\n";
    return row;
  }

 private:
  void fit(const TextCells& cells) {
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], text_width(cells[i]));
  }
};

std::string text_facts(const VerifyReport& report) {
  auto facts = report.facts;
  facts.emplace_back("Finished", report.finished_at + ", after " + seconds_text(report.seconds));
  size_t indent = 0;
  for (const auto& [name, value] : facts) indent = std::max(indent, text_width(clean_line(name)) + 2);
  indent = std::min(indent, kTextWidth / 3);
  std::string block;
  for (const auto& [name, value] : facts) {
    const std::string label = clean_line(name);
    block += text_block(label.substr(0, text_prefix(label, indent - 2)), indent, value);
  }
  return block;
}

std::string text_check(const CheckResult& check, const TextColumns& columns) {
  std::string section = text_heading(
      clean_line(check.name) + ": " + std::string(verdict_word(check.passed())) + " in " + seconds_text(check.seconds),
      '-');
  section += text_block("", 0, check_rule(check.name));
  if (!check.error.empty() || check.measurements.empty()) {
    section += text_block("> ", 2, "FAIL: " + failure_summary(check));
  }
  if (check.measurements.empty()) return section;
  section += "\n" + columns.row("", kTextHead[0], false) + columns.row("what", kTextHead[1], false);
  for (const Measurement& measurement : check.measurements) {
    section += columns.row(measurement.what, text_cells(measurement), !measurement.passed);
    if (!measurement.detail.empty()) section += text_block("", 6, measurement.detail);
  }
  return section;
}

}  // namespace

std::string report_text(const VerifyReport& report) {
  std::string text = text_heading(std::string(kTextTitle), '=') + "\n" + text_facts(report);
  if (!report.fault.empty()) text += "\n" + text_block("", 0, fault_summary(report));
  const TextColumns columns(report);
  for (const CheckResult& check : report.checks) text += "\n" + text_check(check, columns);
  if (report.checks.empty()) text += "\nFAIL: the report holds no check.\n";
  text += "\n" + text_heading("Production readiness", '-');
  for (const auto& line : report.checklist()) text += text_block("  " + text_left(line.verdict, 7), 11, line.text);
  if (!report.failed().empty()) text += "\n" + text_block("", 0, "Failed checks: " + joined(report.failed()));
  return text + "\nVerdict: " + std::string(verdict_word(report.passed())) + "\n";
}

}  // namespace optp

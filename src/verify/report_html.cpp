#include <algorithm>
#include <cmath>

#include "src/verify/report.h"
#include "src/verify/report_style.h"
#include "src/verify/report_words.h"

namespace optp {
namespace {

// A verdict is a word and a sign, so that nobody needs its colour: html_badge("FAIL") is a pill with a cross.
std::string html_sign(std::string_view verdict) {
  const std::string_view sign = verdict == "PASS" ? "\u2713" : verdict == "FAIL" ? "\u2717" : "\u2013";
  return "<span aria-hidden=\"true\">" + std::string(sign) + "</span> " + std::string(verdict);
}

std::string html_class(std::string_view verdict) {
  return verdict == "PASS" ? "pass" : verdict == "FAIL" ? "fail" : "soft";
}

std::string html_badge(std::string_view verdict) {
  return "<span class=\"badge " + html_class(verdict) + "\">" + html_sign(verdict) + "</span>";
}

std::string html_element(const std::string& tag, std::string_view text) {
  return "<" + tag + ">" + escape_markup(text) + "</" + tag + ">";
}

std::string html_share(const Measurement& measurement) {
  const double share = share_of_limit(measurement);
  if (!std::isfinite(measurement.limit)) return "no limit";
  if (measurement.limit == 0) return share == 0 ? "exact" : "must be 0";
  if (!std::isfinite(share)) return "beyond any limit";
  if (share <= 1) return number_text(100 * share) + " % of the limit";
  return share < 1.01 ? "just past the limit" : number_text(share) + " times the limit";
}

// How close a measurement comes to its limit, on a log scale: six factors of ten below the limit and two above.
std::string html_bar(const Measurement& measurement) {
  const std::string label = html_share(measurement);
  if (measurement.limit == 0 || !std::isfinite(measurement.limit)) return "<small>" + label + "</small>";
  constexpr double kDecade = 18, kBelow = 6, kAbove = 2;
  const auto text = [](double x) { return std::to_string(std::lround(x)); };
  const double width = (kBelow + kAbove) * kDecade;
  const double share = share_of_limit(measurement);
  const double filled = share > 0 ? std::clamp((std::log10(share) + kBelow) * kDecade, 3.0, width) : 0;
  std::string svg = "<svg width=\"" + text(width) + "\" height=\"8\" role=\"img\" aria-label=\"" + label +
                    "\"><rect class=\"track\" width=\"" + text(width) + "\" height=\"8\" rx=\"2\"/>";
  svg += "<rect class=\"fill " + html_class(verdict_word(measurement.passed)) + "\" width=\"" + text(filled) +
         "\" height=\"8\" rx=\"2\"/>";
  for (int decade = 1; decade * kDecade < width; ++decade) {
    svg += "<path class=\"tick\" d=\"M" + text(decade * kDecade) + " 0v8\"/>";
  }
  svg += "<path class=\"limit\" d=\"M" + text(kBelow * kDecade) + " -3v14\"/></svg>";
  return svg + "<small aria-hidden=\"true\">" + label + "</small>";
}

std::string html_cell(std::string_view label, const std::string& content) {
  return "<td data-label=\"" + std::string(label) + "\">" + content + "</td>";
}

std::string html_row(const Measurement& measurement) {
  std::string row = measurement.passed ? "<tr>" : "<tr class=\"failed\">";
  row += "<td>" + escape_markup(measurement.what);
  if (!measurement.detail.empty()) row += html_element("small", measurement.detail);
  row += "</td>" + html_cell("largest absolute", difference_text(measurement.max_abs_difference)) +
         html_cell("largest relative", difference_text(measurement.max_rel_difference)) +
         html_cell("value", value_text(measurement)) + html_cell("limit", limit_text(measurement)) + "<td>" +
         html_bar(measurement) + "</td><td>" + html_badge(verdict_word(measurement.passed)) + "</td></tr>\n";
  return row;
}

std::string html_id(size_t check) { return "check-" + std::to_string(check + 1); }

std::string html_check(const CheckResult& check, const std::string& id) {
  const std::string_view verdict = verdict_word(check.passed());
  std::string card = "<section class=\"card check" + std::string(check.passed() ? "" : " failed") + "\" id=\"" + id +
                     "\">\n<header>" + html_element("h2", check.name) + html_badge(verdict) + "<span class=\"soft\">" +
                     seconds_text(check.seconds) + "</span></header>\n<p class=\"soft\">" +
                     escape_markup(check_rule(check.name)) + "</p>\n";
  if (!check.error.empty() || check.measurements.empty()) {
    card += "<p class=\"error\">" + escape_markup(failure_summary(check)) + "</p>\n";
  }
  if (!check.measurements.empty()) {
    card +=
        "<table>\n<thead><tr><th>what</th><th>largest<br/>absolute</th><th>largest<br/>relative</th><th>value</th>"
        "<th>limit</th><th>distance to the limit</th><th>verdict</th></tr></thead>\n<tbody>\n";
    for (const Measurement& measurement : check.measurements) card += html_row(measurement);
    card += "</tbody>\n</table>\n";
  }
  return card + "</section>\n";
}

std::string html_failed_links(const VerifyReport& report) {
  std::string links;
  for (size_t i = 0; i < report.checks.size(); ++i) {
    if (report.checks[i].passed()) continue;
    links += (links.empty() ? "<a href=\"#" : ", <a href=\"#") + html_id(i) + "\">" +
             escape_markup(report.checks[i].name) + "</a>";
  }
  return links;
}

std::string html_hero(const VerifyReport& report) {
  const std::string_view verdict = verdict_word(report.passed());
  const size_t failed = report.failed().size();
  const std::string total = std::to_string(report.checks.size());
  const std::string ranks = std::to_string(report.tp) + (report.tp == 1 ? " rank" : " tensor-parallel ranks") +
                            (report.dp == 1 ? "" : ", " + std::to_string(report.dp) + " copies");
  std::string hero = "<section class=\"card hero " + html_class(verdict) + "\">\n<p class=\"verdict\">" +
                     html_sign(verdict) + "</p>\n<p>";
  if (report.checks.empty()) {
    hero += "The report holds no check.";
  } else if (failed == 0) {
    hero += total + " of " + total + " checks passed.";
  } else {
    hero += std::to_string(failed) + " of " + total + " checks failed: " + html_failed_links(report) + ".";
  }
  hero += "</p>\n<p>" + escape_markup(report.model + ", " + ranks + ", " + report.dtype) + "</p>\n";
  if (!report.fault.empty()) hero += html_element("p", fault_summary(report)) + "\n";
  return hero + "</section>\n";
}

// The production-readiness checklist, then the facts.
std::string html_overview(const VerifyReport& report) {
  std::string html = "<section class=\"card\"><h2>Production readiness</h2>\n<ul>\n";
  for (const auto& line : report.checklist()) {
    html += "<li>" + html_badge(line.verdict) + html_element("span", line.text) + "</li>\n";
  }
  html += "</ul></section>\n<section class=\"card\"><h2>This run</h2>\n<dl>\n";
  for (const auto& [name, value] : report.facts) html += html_element("dt", name) + html_element("dd", value) + "\n";
  return html + html_element("dt", "Finished") +
         html_element("dd", report.finished_at + ", after " + seconds_text(report.seconds)) + "\n</dl></section>\n";
}

}  // namespace

// The markup is also well-formed XML but for its first line, which lets a test read it with a small parser.
std::string report_html(const VerifyReport& report) {
  const std::string title = std::string(verdict_word(report.passed())) + ": optp verify, " + report.model + ", tp " +
                            std::to_string(report.tp);
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n" +
      html_element("title", title) + "\n<style>" + kReportStyle + "</style>\n</head>\n<body>\n<main>\n" +
      "<h1>OPT tensor parallelism: verification report</h1>\n" + html_hero(report) + html_overview(report);
  for (size_t i = 0; i < report.checks.size(); ++i) html += html_check(report.checks[i], html_id(i));
  return html +
         "<p class=\"card soft\">The bars are drawn on a log scale: each step is a factor of ten, the upright line is "
         "the "
         "limit.</p>\n</main>\n</body>\n</html>\n";
}

}  // namespace optp

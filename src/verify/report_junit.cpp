#include <algorithm>

#include "src/verify/report.h"
#include "src/verify/report_words.h"

namespace optp {
namespace {

std::string junit_attribute(const std::string& name, const std::string& value) {
  return " " + name + "=\"" + escape_markup(value) + "\"";
}

std::string junit_property(const std::string& name, const std::string& value) {
  return "      <property" + junit_attribute("name", name) + junit_attribute("value", value) + "/>\n";
}

std::string junit_row(const Measurement& measurement) {
  return measurement.what + ": value " + value_text(measurement) + ", limit " + limit_text(measurement) +
         ", largest absolute difference " + difference_text(measurement.max_abs_difference) + ", relative " +
         difference_text(measurement.max_rel_difference) +
         (measurement.detail.empty() ? "" : "; " + measurement.detail);
}

std::string junit_seconds(double seconds) {
  const std::string text = seconds_text(seconds);
  return text.substr(0, text.find(' '));
}

std::string junit_case(const CheckResult& check) {
  std::string xml = "    <testcase classname=\"optp.verify\"" + junit_attribute("name", check.name) +
                    junit_attribute("time", junit_seconds(check.seconds));
  if (check.passed()) return xml + "/>\n";
  const std::string tag = check.error.empty() ? "failure" : "error";
  xml += ">\n      <" + tag + junit_attribute("message", failure_summary(check)) + ">";
  for (const Measurement& measurement : check.measurements) {
    if (!measurement.passed) xml += "\n" + escape_markup(junit_row(measurement));
  }
  return xml + "</" + tag + ">\n    </testcase>\n";
}

}  // namespace

std::string report_junit(const VerifyReport& report) {
  std::vector<CheckResult> cases = report.checks;
  // Readers of JUnit files take a suite without cases for a good one.
  if (cases.empty()) cases.push_back({.name = "any check", .error = "the report holds no check"});
  const auto errors =
      std::count_if(cases.begin(), cases.end(), [](const CheckResult& check) { return !check.error.empty(); });
  const auto failures = std::count_if(cases.begin(), cases.end(),
                                      [](const CheckResult& check) { return check.error.empty() && !check.passed(); });

  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"optp verify\"" +
                    junit_attribute("tests", std::to_string(cases.size())) +
                    junit_attribute("failures", std::to_string(failures)) +
                    junit_attribute("errors", std::to_string(errors)) + junit_attribute("skipped", "0") +
                    junit_attribute("time", junit_seconds(report.seconds)) +
                    junit_attribute("timestamp", report.finished_at) + ">\n    <properties>\n";
  for (const auto& [name, value] : report.facts) xml += junit_property(name, value);
  if (!report.fault.empty()) xml += junit_property("injected fault", report.fault);
  xml += "    </properties>\n";
  for (const CheckResult& check : cases) xml += junit_case(check);
  return xml + "  </testsuite>\n</testsuites>\n";
}

}  // namespace optp

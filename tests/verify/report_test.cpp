#include "src/verify/report.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <sstream>

#include "tests/verify/markup.h"

namespace optp {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// Markup, quotes, a line break, an escape sequence, a C1 control, a byte that is no UTF-8, and U+FFFE, which XML
// forbids.
const std::string kHostile =
    "<script>alert('x')</script> & \"q\"\nVerdict: PASS\x1b[2J \xC2\x9B \xFF \xEF\xBF\xBE caf\xC3\xA9";
const std::string kHostileCleaned =
    "<script>alert('x')</script> & \"q\" Verdict: PASS [2J   \xEF\xBF\xBD   caf\xC3\xA9";

CheckResult passing_check() {
  return {.name = "forward",
          .measurements = {{.what = "logits, 1 x 16 tokens",
                            .value = 1.1920928955078125e-07,
                            .limit = 1e-5,
                            .passed = true,
                            .max_abs_difference = 1.1920928955078125e-07,
                            .max_rel_difference = 3.5e-08},
                           {.what = "logits, 2 x 64 tokens, left padding",
                            .value = 8.34465e-07,
                            .limit = 1e-5,
                            .passed = true,
                            .max_abs_difference = 8.34465e-07,
                            .max_rel_difference = 2.2e-07,
                            .detail = "absolute rule: the largest logit is 3.79"},
                           {.what = "elements that are NaN or Inf", .value = 0, .limit = 0, .passed = true}},
          .seconds = 12.34};
}

CheckResult failing_check() {
  return {
      .name = "backward",
      .measurements = {{.what = "loss",
                        .value = 4.76837158203125e-07,
                        .limit = 1e-3,
                        .passed = true,
                        .max_abs_difference = 4.76837158203125e-07,
                        .max_rel_difference = 4.4e-08,
                        .detail = "reference 10.845399856567383, sharded 10.845400333404541"},
                       {.what = "gradients, divided by the largest of their tensor",
                        .value = 1.02,
                        .limit = 1e-5,
                        .passed = false,
                        .max_abs_difference = 0.0371,
                        .max_rel_difference = 1.02,
                        .detail = "worst: model.decoder.layers.0.self_attn.out_proj.weight; 148 tensors compared, 37 "
                                  "beyond the limit"},
                       {.what = "parameters after an SGD step",
                        .value = 1.0004e-06,
                        .limit = 1e-6,
                        .passed = false,
                        .max_abs_difference = 1.0004e-06,
                        .max_rel_difference = 2e-6}},
      .seconds = 31};
}

CheckResult hostile_check() {
  return {.name = "end-to-end",
          .measurements =
              {{.what = "loss of " + kHostile, .value = kNan, .limit = 1e-3, .detail = kHostile},
               {.what = "a word of " + std::string(130, 'x'), .value = kInf, .limit = 1e-3, .max_abs_difference = kInf},
               {.what = "resident memory", .value = 1234567890, .limit = kInf, .passed = true}},
          .seconds = 0.04};
}

CheckResult broken_check() { return {.name = "optimizers", .error = "rank 1: " + kHostile, .seconds = 1}; }

VerifyReport small_report(std::vector<CheckResult> checks) {
  VerifyReport report;
  report.facts = {{"machine", "AMD EPYC, 2 cores, 8 GiB"}, {"model", "opt-125m: 12 layers, hidden 768, 12 heads"}};
  report.checks = std::move(checks);
  report.model = "opt-125m";
  report.dtype = "float32";
  report.tp = 2;
  report.seconds = 141.25;
  report.finished_at = "2026-01-31T12:34:56";
  return report;
}

// Every kind of check at once; memory and stability were not asked for.
VerifyReport mixed_report() {
  VerifyReport report =
      small_report({passing_check(), failing_check(), {.name = "gradients"}, broken_check(), hostile_check()});
  report.facts.emplace_back("text", kHostile);
  report.facts.emplace_back("weights", "my-weights/" + std::string(150, 'w'));
  return report;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string line_with(const std::string& text, const std::string& part) {
  for (const std::string& line : lines_of(text)) {
    if (line.find(part) != std::string::npos) return line;
  }
  return "no line with " + part;
}

std::vector<MarkupElement> elements(const std::string& document, const std::string& name) {
  std::vector<MarkupElement> found;
  for (const MarkupElement& element : read_markup(document)) {
    if (element.name == name) found.push_back(element);
  }
  return found;
}

std::string table_row(const std::string& what, const std::string& numbers) {
  return what + std::string(52 - what.size(), ' ') + numbers;
}

TEST(Report, PassesOnlyWhenEveryCheckMeasuredSomethingAndPassed) {
  EXPECT_TRUE(small_report({passing_check()}).passed());
  EXPECT_FALSE(small_report({}).passed());
  EXPECT_FALSE(small_report({passing_check(), {.name = "memory"}}).passed());
  EXPECT_FALSE(small_report({passing_check(), failing_check()}).passed());
  CheckResult measured_then_failed = passing_check();
  measured_then_failed.error = "rank 1 was lost";
  EXPECT_FALSE(small_report({measured_then_failed}).passed());
  EXPECT_THAT(mixed_report().failed(), ElementsAre("backward", "gradients", "optimizers", "end-to-end"));
}

TEST(Report, WorstIsTheFailureOrTheOneNearestToItsLimit) {
  EXPECT_EQ(CheckResult{}.worst(), nullptr);
  EXPECT_EQ(passing_check().worst()->what, "logits, 2 x 64 tokens, left padding");
  EXPECT_EQ(failing_check().worst()->limit, 1e-5);
  EXPECT_EQ(hostile_check().worst()->limit, 1e-3);
  const CheckResult decided_otherwise = {.measurements = {{.what = "near", .value = 0.9, .limit = 1, .passed = true},
                                                          {.what = "far, failed", .value = 0, .limit = 1}}};
  EXPECT_EQ(decided_otherwise.worst()->what, "far, failed");
}

TEST(Report, ChecklistHasEightLinesWithLimits) {
  const auto lines = mixed_report().checklist();
  ASSERT_EQ(lines.size(), 8U);
  std::vector<std::string> verdicts;
  for (const auto& line : lines) verdicts.push_back(line.verdict);
  EXPECT_THAT(verdicts, ElementsAre("PASS", "FAIL", "FAIL", "FAIL", "not run", "not run", "FAIL", "PASS"));
  EXPECT_THAT(lines[0].text, EndsWith("(limits: exact, 1e-05)"));
  EXPECT_THAT(lines[1].text, EndsWith("(limits: 1e-06, 1e-05, 0.001)"));
  EXPECT_EQ(small_report({}).checklist()[6].verdict, "not run");
  EXPECT_EQ(small_report({passing_check()}).checklist()[6].verdict, "PASS");
}

TEST(ReportText, EndsWithTheVerdict) {
  EXPECT_THAT(report_text(small_report({passing_check()})), EndsWith("\nVerdict: PASS\n"));
  EXPECT_THAT(report_text(mixed_report()), EndsWith("\nVerdict: FAIL\n"));
  EXPECT_THAT(report_text(small_report({})), EndsWith("\nVerdict: FAIL\n"));
  for (const std::string& line : lines_of(report_text(mixed_report()))) EXPECT_NE(line, "Verdict: PASS");
}

TEST(ReportText, ShowsEachMeasurementInARow) {
  const std::string text = report_text(mixed_report());
  EXPECT_THAT(text, HasSubstr("\nforward: PASS in 12.3 s\n"));
  EXPECT_EQ(line_with(text, "logits, 1 x"),
            table_row("  logits, 1 x 16 tokens", "  1.19e-07   3.5e-08    1.19e-07  1e-05     PASS"));
  EXPECT_EQ(line_with(text, "elements that"),
            table_row("  elements that are NaN or Inf", "         -         -           0      0     PASS"));
  EXPECT_THAT(text, HasSubstr("\n      reference 10.845399856567383, sharded 10.845400333404541\n"));
  // A value just past its limit gets as many digits as it takes to see that.
  EXPECT_EQ(line_with(text, "parameters after"),
            table_row("> parameters after an SGD step", "     1e-06     2e-06  1.0004e-06  1e-06     FAIL"));
}

TEST(ReportText, ShowsNanInfiniteAndFailedChecks) {
  const std::string text = report_text(mixed_report());
  EXPECT_THAT(line_with(text, "> loss of"), EndsWith("-         -         nan  0.001     FAIL"));
  EXPECT_THAT(line_with(text, "> a word"), EndsWith("inf         -         inf  0.001     FAIL"));
  EXPECT_THAT(line_with(text, "resident memory"), EndsWith("1.23e+09   none     PASS"));
  EXPECT_THAT(text, HasSubstr("\n> FAIL: nothing was measured\n"));
  EXPECT_THAT(text, HasSubstr("\n> FAIL: could not run: rank 1: <script>"));
  EXPECT_THAT(text, HasSubstr("\nFailed checks: backward, gradients, optimizers, end-to-end\n"));
}

TEST(ReportText, StaysWithin100ColumnsWithoutControlCharacters) {
  for (const std::string& line : lines_of(report_text(mixed_report()))) {
    EXPECT_LE(std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; }), 100) << line;
    EXPECT_EQ(std::count_if(line.begin(), line.end(), [](char c) { return c >= 0 && c < 0x20; }), 0) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << line;
  }
}

TEST(ReportText, SaysWhichCheckCaughtTheInjectedFault) {
  VerifyReport report = small_report({passing_check(), failing_check()});
  EXPECT_THAT(report_text(report), Not(HasSubstr("Injected")));
  report.fault = "gradient-scaled";
  EXPECT_THAT(report_text(report), HasSubstr("\nInjected fault: gradient-scaled. Caught by: backward.\n"));
  report.checks.pop_back();
  EXPECT_THAT(report_text(report), HasSubstr("\nInjected fault: gradient-scaled. No check caught it.\n"));
}

TEST(ReportJson, HoldsThePromisedKeysAtFullPrecision) {
  const json report = json::parse(report_json(mixed_report()));
  EXPECT_EQ(report["verdict"], "fail");
  EXPECT_EQ(report["model"], "opt-125m");
  EXPECT_EQ(report["tp"], 2);
  EXPECT_EQ(report["dp"], 1);
  EXPECT_EQ(report["dtype"], "float32");
  EXPECT_EQ(report["seconds"], 141.25);
  EXPECT_FALSE(report.contains("caught_by"));
  ASSERT_EQ(report["checks"].size(), 5U);

  const json& forward = report["checks"][0];
  EXPECT_EQ(forward["name"], "forward");
  EXPECT_EQ(forward["verdict"], "pass");
  EXPECT_EQ(forward["seconds"], 12.34);
  EXPECT_EQ(forward["max_abs_difference"].get<double>(), 8.34465e-07);
  EXPECT_EQ(forward["max_rel_difference"].get<double>(), 2.2e-07);
  EXPECT_EQ(forward["limit"].get<double>(), 1e-5);
  EXPECT_EQ(forward["detail"], "logits, 2 x 64 tokens, left padding: absolute rule: the largest logit is 3.79");
  EXPECT_EQ(forward["measurements"][0]["value"].get<double>(), 1.1920928955078125e-07);
  EXPECT_EQ(forward["measurements"].size(), 3U);
  EXPECT_EQ(report["checks"][1]["verdict"], "fail");
  EXPECT_EQ(report["checks"][1]["max_abs_difference"], 0.0371);
  EXPECT_EQ(report["facts"]["machine"], "AMD EPYC, 2 cores, 8 GiB");
  EXPECT_EQ(report["checklist"].size(), 8U);
}

TEST(ReportJson, HasNullWhereThereIsNoNumber) {
  const json report = json::parse(report_json(mixed_report()));
  EXPECT_TRUE(report["checks"][2]["limit"].is_null());
  EXPECT_EQ(report["checks"][2]["detail"], "nothing was measured");
  EXPECT_THAT(report["checks"][3]["error"].get<std::string>(),
              HasSubstr("<script>alert('x')</script> & \"q\"\nVerdict"));
  const json& hostile = report["checks"][4];
  EXPECT_TRUE(hostile["measurements"][0]["value"].is_null());
  EXPECT_TRUE(hostile["measurements"][1]["value"].is_null());
  EXPECT_TRUE(hostile["measurements"][2]["limit"].is_null());

  // A NaN must not hide behind the other measurements' small differences.
  CheckResult check = passing_check();
  check.measurements[0].value = check.measurements[0].max_abs_difference = kNan;
  check.measurements[0].passed = false;
  EXPECT_TRUE(json::parse(report_json(small_report({check})))["checks"][0]["max_abs_difference"].is_null());
}

TEST(ReportJson, SpeaksOfTheComparisonNearestToItsLimit) {
  CheckResult check = passing_check();
  check.measurements.push_back({.what = "largest shard over the mean", .value = 1.4, .limit = 1.5, .passed = true});
  json object = json::parse(report_json(small_report({check})))["checks"][0];
  EXPECT_EQ(object["max_abs_difference"], 8.34465e-07);
  EXPECT_EQ(object["limit"], 1e-5);

  check.measurements.back().passed = false;
  object = json::parse(report_json(small_report({check})))["checks"][0];
  EXPECT_TRUE(object["max_abs_difference"].is_null());
  EXPECT_EQ(object["limit"], 1.5);
  EXPECT_EQ(object["detail"], "largest shard over the mean");
}

TEST(ReportJson, NamesTheChecksThatCaughtTheFault) {
  VerifyReport report = small_report({passing_check(), failing_check()});
  report.fault = "gradient-scaled";
  EXPECT_EQ(json::parse(report_json(report))["caught_by"], json::parse(R"(["backward"])"));
  report.checks.pop_back();
  EXPECT_EQ(json::parse(report_json(report))["caught_by"], json::array());
}

TEST(ReportJUnit, HasATestCaseForEachCheck) {
  const std::string xml = report_junit(mixed_report());
  const auto suites = elements(xml, "testsuite");
  ASSERT_EQ(suites.size(), 1U);
  EXPECT_EQ(suites[0].attributes.at("name"), "optp verify");
  EXPECT_EQ(suites[0].attributes.at("tests"), "5");
  EXPECT_EQ(suites[0].attributes.at("failures"), "3");
  EXPECT_EQ(suites[0].attributes.at("errors"), "1");
  EXPECT_EQ(suites[0].attributes.at("time"), "141.2");
  const auto cases = elements(xml, "testcase");
  ASSERT_EQ(cases.size(), 5U);
  EXPECT_EQ(cases[1].attributes.at("name"), "backward");
  EXPECT_EQ(cases[1].attributes.at("time"), "31.0");
  EXPECT_EQ(cases[0].text, "");

  const auto failures = elements(xml, "failure");
  ASSERT_EQ(failures.size(), 3U);
  EXPECT_EQ(failures[0].attributes.at("message"),
            "2 of 3 failed, worst: gradients, divided by the largest of their tensor: 1.02, limit 1e-05");
  EXPECT_THAT(failures[0].text, HasSubstr("37 beyond the limit"));
  EXPECT_THAT(failures[0].text, HasSubstr("parameters after an SGD step: value 1.0004e-06, limit 1e-06"));
  EXPECT_THAT(failures[0].text, Not(HasSubstr("loss")));
  EXPECT_EQ(failures[1].attributes.at("message"), "nothing was measured");
  EXPECT_THAT(failures[2].text, HasSubstr(kHostileCleaned));
  const auto errors = elements(xml, "error");
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0].attributes.at("message"), "could not run: rank 1: " + kHostileCleaned);
}

TEST(ReportJUnit, IsNotGoodWithoutChecks) {
  const std::string xml = report_junit(small_report({}));
  EXPECT_EQ(elements(xml, "testsuite")[0].attributes.at("errors"), "1");
  EXPECT_EQ(elements(xml, "error").size(), 1U);
}

TEST(ReportHtml, IsOneWellFormedPageWithoutScriptOrOtherFiles) {
  const std::string html = report_html(mixed_report());
  EXPECT_EQ(elements(html, "html")[0].attributes.at("lang"), "en");
  EXPECT_EQ(elements(html, "title")[0].text, "FAIL: optp verify, opt-125m, tp 2");
  EXPECT_EQ(elements(html, "script").size() + elements(html, "link").size() + elements(html, "img").size(), 0U);
  EXPECT_THAT(html, Not(HasSubstr("http://")));
  EXPECT_THAT(html, Not(HasSubstr("https://")));
  EXPECT_THAT(html, Not(HasSubstr("url(")));
  EXPECT_THAT(html, HasSubstr("name=\"viewport\""));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme: dark"));
}

TEST(ReportHtml, ShowsChecksMeasurementsAndText) {
  const std::string html = report_html(mixed_report());
  const std::string body = elements(html, "body")[0].text;
  EXPECT_THAT(body, HasSubstr("\u2717 FAIL"));
  EXPECT_THAT(body, HasSubstr("4 of 5 checks failed: backward, gradients, optimizers, end-to-end."));
  EXPECT_THAT(body, HasSubstr("rank 1: " + kHostileCleaned));
  EXPECT_THAT(body, HasSubstr("loss of " + kHostileCleaned));
  EXPECT_THAT(body, HasSubstr("-00exact\u2713 PASS"));
  EXPECT_EQ(elements(html, "table").size(), 3U);
  EXPECT_EQ(elements(html, "li").size(), 8U);

  std::vector<std::string> bars;
  for (const MarkupElement& svg : elements(html, "svg")) bars.push_back(svg.attributes.at("aria-label"));
  EXPECT_THAT(
      bars, ElementsAre("1.19 % of the limit", "8.34 % of the limit", "0.0477 % of the limit", "102000 times the limit",
                        "just past the limit", "beyond any limit", "beyond any limit"));
}

TEST(ReportHtml, SaysThatAllPassedAndWhatWasInjected) {
  VerifyReport report = small_report({passing_check()});
  EXPECT_THAT(elements(report_html(report), "body")[0].text, HasSubstr("\u2713 PASS\n1 of 1 checks passed."));
  report.checks.push_back(failing_check());
  report.fault = "<b>fault</b>";
  EXPECT_THAT(elements(report_html(report), "body")[0].text,
              HasSubstr("Injected fault: <b>fault</b>. Caught by: backward."));
  EXPECT_THAT(elements(report_html(small_report({})), "body")[0].text, HasSubstr("The report holds no check."));
}

}  // namespace
}  // namespace optp

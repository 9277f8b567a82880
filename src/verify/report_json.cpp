#include <nlohmann/json.hpp>

#include <cmath>

#include "src/verify/report.h"
#include "src/verify/report_words.h"

namespace optp {
namespace {

using Json = nlohmann::ordered_json;  // NaN and infinity, which JSON lacks, come out as null

const char* json_verdict(bool passed) { return passed ? "pass" : "fail"; }

// The measurement that speaks for the whole check, so that its difference and its limit belong together: the worst one,
// and where all pass rather one that compared numbers. Null without measurements.
const Measurement* json_headline(const CheckResult& check) {
  const Measurement* headline = check.worst();
  if (headline == nullptr || !headline->passed) return headline;
  for (const Measurement& measurement : check.measurements) {
    if (std::isnan(measurement.max_abs_difference)) continue;
    const bool counted = std::isnan(headline->max_abs_difference);
    if (counted || share_of_limit(measurement) > share_of_limit(*headline)) headline = &measurement;
  }
  return headline;
}

std::string json_detail(const CheckResult& check, const Measurement* headline) {
  if (headline == nullptr || !check.error.empty()) return failure_summary(check);
  return headline->what + (headline->detail.empty() ? "" : ": " + headline->detail);
}

Json json_measurement(const Measurement& measurement) {
  return {{"what", measurement.what},
          {"verdict", json_verdict(measurement.passed)},
          {"value", measurement.value},
          {"limit", measurement.limit},
          {"max_abs_difference", measurement.max_abs_difference},
          {"max_rel_difference", measurement.max_rel_difference},
          {"detail", measurement.detail}};
}

Json json_check(const CheckResult& check) {
  const Measurement* headline = json_headline(check);
  const Measurement nothing{.value = Measurement::kNone, .limit = Measurement::kNone};
  const Measurement& shown = headline ? *headline : nothing;
  Json object = {{"name", check.name},
                 {"verdict", json_verdict(check.passed())},
                 {"seconds", check.seconds},
                 {"max_abs_difference", shown.max_abs_difference},
                 {"max_rel_difference", shown.max_rel_difference},
                 {"value", shown.value},
                 {"limit", shown.limit},
                 {"detail", json_detail(check, headline)}};
  if (!check.error.empty()) object["error"] = check.error;
  object["measurements"] = Json::array();
  for (const Measurement& measurement : check.measurements) {
    object["measurements"].push_back(json_measurement(measurement));
  }
  return object;
}

}  // namespace

std::string report_json(const VerifyReport& report) {
  Json object = {{"verdict", json_verdict(report.passed())},
                 {"model", report.model},
                 {"tp", report.tp},
                 {"dp", report.dp},
                 {"dtype", report.dtype},
                 {"seconds", report.seconds},
                 {"finished_at", report.finished_at}};
  if (!report.fault.empty()) {
    object["fault"] = report.fault;
    object["caught_by"] = report.failed();
  }
  object["facts"] = Json::object();
  for (const auto& [name, value] : report.facts) object["facts"][name] = value;
  object["checks"] = Json::array();
  for (const CheckResult& check : report.checks) object["checks"].push_back(json_check(check));
  object["checklist"] = Json::array();
  for (const auto& line : report.checklist()) {
    object["checklist"].push_back({{"text", line.text}, {"verdict", line.verdict}});
  }
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace optp

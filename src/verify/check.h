// What a verification found: the measurements of each check, and the report that holds them all.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace optp {

/// One line of a check's table: something that was compared or counted, and what it was held to.
struct Measurement {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  std::string what;  ///< "logits, 2 x 64 tokens, left padding"
  double value = 0;  ///< what is held to the limit
  double limit = 0;  ///< value <= limit passes, unless `passed` was decided otherwise
  bool passed = false;
  double max_abs_difference = kNone;  ///< over all elements and ranks; kNone where nothing was subtracted
  double max_rel_difference = kNone;  ///< the same, divided by the largest expected element
  std::string detail;                 ///< what a reader needs to know: the rule, the worst parameter, figures
};

struct CheckResult {
  std::string name;  ///< "forward", as in --checks
  std::vector<Measurement> measurements;
  std::string error;  ///< why the check could not run; empty when it did
  double seconds = 0;

  bool passed() const;
  /// The measurement that fails or, when all pass, comes closest to its limit; null without measurements.
  const Measurement* worst() const;
};

struct VerifyReport {
  /// Facts in the order they are printed: machine, versions, model, mesh, dtype, seed, inputs.
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<CheckResult> checks;
  std::string model;
  std::string dtype;
  std::string fault;  ///< what was injected; empty in an honest run
  int64_t tp = 1;
  int64_t dp = 1;
  double seconds = 0;
  std::string finished_at;  ///< local time, ISO 8601

  /// Whether there were checks and all passed. A model that was broken on purpose never passes, caught or not.
  bool passed() const;
  /// Names of the checks that failed.
  std::vector<std::string> failed() const;
  /// The eight lines of the production-readiness checklist: the six checks forward to stability with their limits, no
  /// exceptions, report written. A check that was not asked for counts as not shown ("not run").
  struct ChecklistLine {
    std::string text;
    std::string verdict;  ///< "PASS", "FAIL" or "not run"
  };
  std::vector<ChecklistLine> checklist() const;
};

}  // namespace optp

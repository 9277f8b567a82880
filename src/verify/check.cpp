#include "src/verify/check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "src/verify/report_words.h"

namespace optp {
namespace {

struct Claim {
  std::string_view check;
  std::string_view text;
};

// The production-readiness checklist's first six lines.
constexpr std::array<Claim, 6> kClaims = {{
    {"forward", "the sharded model gives the reference's logits"},
    {"backward", "a training step gives its loss, its gradients and its parameters"},
    {"gradients", "gradients are complete, consistent over the ranks and numerically right"},
    {"optimizers", "every optimizer takes the reference's steps"},
    {"memory", "parameters are divided over the ranks, with little on top"},
    {"stability", "training converges, stays finite and keeps to the reference"},
}};

// The limits a check was held to, each once, the tightest first: " (limits: exact, 1e-05)".
std::string limits_of(const CheckResult& check) {
  std::vector<double> limits;
  for (const Measurement& measurement : check.measurements) {
    if (std::isfinite(measurement.limit)) limits.push_back(measurement.limit);
  }
  std::sort(limits.begin(), limits.end());
  std::vector<std::string> texts;
  for (const double limit : limits) texts.push_back(limit == 0 ? "exact" : number_text(limit));
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  if (texts.empty()) return {};
  return (texts.size() == 1 ? " (limit: " : " (limits: ") + joined(texts) + ")";
}

}  // namespace

bool CheckResult::passed() const {
  return error.empty() && !measurements.empty() &&
         std::all_of(measurements.begin(), measurements.end(), [](const Measurement& m) { return m.passed; });
}

const Measurement* CheckResult::worst() const {
  const auto better = [](const Measurement& a, const Measurement& b) {
    if (a.passed != b.passed) return a.passed;
    return share_of_limit(a) < share_of_limit(b);
  };
  const auto worst = std::max_element(measurements.begin(), measurements.end(), better);
  return worst == measurements.end() ? nullptr : &*worst;
}

bool VerifyReport::passed() const {
  return fault.empty() && !checks.empty() &&
         std::all_of(checks.begin(), checks.end(), [](const CheckResult& check) { return check.passed(); });
}

std::vector<std::string> VerifyReport::failed() const {
  std::vector<std::string> names;
  for (const CheckResult& check : checks) {
    if (!check.passed()) names.push_back(check.name);
  }
  return names;
}

std::vector<VerifyReport::ChecklistLine> VerifyReport::checklist() const {
  std::vector<ChecklistLine> lines;
  for (const Claim& claim : kClaims) {
    const auto check =
        std::find_if(checks.begin(), checks.end(), [&](const CheckResult& each) { return each.name == claim.check; });
    const std::string text = std::string(claim.check) + ": " + std::string(claim.text);
    if (check == checks.end()) {
      lines.push_back({text, "not run"});
    } else {
      lines.push_back({text + limits_of(*check), std::string(verdict_word(check->passed()))});
    }
  }
  const bool no_errors =
      std::all_of(checks.begin(), checks.end(), [](const CheckResult& check) { return check.error.empty(); });
  lines.push_back(
      {"no exceptions: every check ran to its end", checks.empty() ? "not run" : std::string(verdict_word(no_errors))});
  lines.push_back({"report written", std::string(verdict_word(true))});  // whoever reads this line has it
  return lines;
}

}  // namespace optp

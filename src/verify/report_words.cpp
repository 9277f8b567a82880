#include "src/verify/report_words.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace optp {
namespace {

struct CheckRule {
  std::string_view name;
  std::string_view rule;
};

constexpr std::array<CheckRule, 7> kCheckRules = {{
    {"forward", "Same weights, same input: the same logits, shape and dtype, padding included; no NaN or Inf."},
    {"backward", "One training step: the same loss, the same gradients, and every parameter moved alike."},
    {"gradients", "Gradients: right shapes, replicas equal bit for bit, and central differences agree."},
    {"optimizers", "Adam, AdamW, SGD, RMSprop: the same losses and weights for several steps; sharded state."},
    {"memory", "The shards add up to little more than the whole; training takes and sends what the plan says."},
    {"stability", "Several epochs: the loss falls, stays finite and equals the reference's; replicas agree."},
    {"end-to-end", "The shards put together are the whole model; it infers and trains as the reference does."},
}};

std::string formatted(double value, std::chars_format format, int digits) {
  std::array<char, 400> buffer;  // the longest double in fixed notation has 309 digits before its point
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format, digits);
  return {buffer.data(), result.ptr};
}

}  // namespace

std::string_view check_rule(std::string_view name) {
  for (const CheckRule& check : kCheckRules) {
    if (check.name == name) return check.rule;
  }
  return {};
}

std::string_view verdict_word(bool passed) { return passed ? "PASS" : "FAIL"; }

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (value == std::trunc(value) && std::abs(value) < 1e6)
    return formatted(value + 0.0, std::chars_format::fixed, 0);  // -0 is 0
  return formatted(value, std::chars_format::general, 3);
}

std::string difference_text(double difference) { return std::isnan(difference) ? "-" : number_text(difference); }

std::string value_text(const Measurement& measurement) {
  const std::string limit = number_text(measurement.limit);
  std::string text = number_text(measurement.value);
  for (int digits = 4; text == limit && measurement.value != measurement.limit && digits <= 17; ++digits) {
    text = formatted(measurement.value, std::chars_format::general, digits);
  }
  return text;
}

std::string limit_text(const Measurement& measurement) {
  return std::isfinite(measurement.limit) ? number_text(measurement.limit) : "none";
}

std::string seconds_text(double seconds) { return formatted(seconds, std::chars_format::fixed, 1) + " s"; }

double share_of_limit(const Measurement& measurement) {
  const auto [value, limit] = std::pair(measurement.value, measurement.limit);
  if (std::isnan(value)) return std::numeric_limits<double>::infinity();
  if (!std::isfinite(limit) || value <= std::min(limit, 0.0)) return 0;
  if (limit <= 0) return std::numeric_limits<double>::infinity();
  return std::max(value, 0.0) / limit;
}

std::string failure_summary(const CheckResult& check) {
  if (!check.error.empty()) return "could not run: " + check.error;
  if (check.measurements.empty()) return "nothing was measured";
  const auto failed = std::count_if(check.measurements.begin(), check.measurements.end(),
                                    [](const Measurement& measurement) { return !measurement.passed; });
  const Measurement& worst = *check.worst();
  return std::to_string(failed) + " of " + std::to_string(check.measurements.size()) + " failed, worst: " + worst.what +
         ": " + value_text(worst) + ", limit " + limit_text(worst);
}

std::string fault_summary(const VerifyReport& report) {
  if (report.fault.empty()) return {};
  const std::vector<std::string> caught_by = report.failed();
  return "Injected fault: " + report.fault + ". " +
         (caught_by.empty() ? "No check caught it." : "Caught by: " + joined(caught_by) + ".");
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string clean_line(std::string_view text) {
  using nlohmann::json;
  // The JSON library replaces what is not UTF-8; there and back again gives the text with nothing else changed.
  const std::string valid = json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace));
  std::string line;
  for (size_t i = 0; i < valid.size(); ++i) {
    const auto byte = static_cast<unsigned char>(valid[i]);
    const auto next = static_cast<unsigned char>(i + 1 < valid.size() ? valid[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7F) {
      line += ' ';
    } else if (byte == 0xC2 && next < 0xA0) {  // the control characters U+0080 to U+009F
      line += ' ';
      i += 1;
    } else if (valid.compare(i, 3, "\xEF\xBF\xBE") == 0 || valid.compare(i, 3, "\xEF\xBF\xBF") == 0) {  // no characters
      line += ' ';
      i += 2;
    } else {
      line += valid[i];
    }
  }
  return line;
}

std::string escape_markup(std::string_view text) {
  std::string escaped;
  for (const char c : clean_line(text)) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace optp

// The words and numbers that a report's text, page and machine-readable forms share.
#pragma once

#include <string>
#include <string_view>

#include "src/verify/check.h"

namespace optp {

/// What must hold for the check called `name` to pass, in one sentence; empty for a name that is no check.
std::string_view check_rule(std::string_view name);

/// "PASS" or "FAIL".
std::string_view verdict_word(bool passed);

/// Three significant digits ("1.19e-07", "0.9"); whole numbers below a million in full; "nan", "inf".
std::string number_text(double value);
/// A difference, "-" where nothing was subtracted.
std::string difference_text(double difference);
/// The measured value, with as many digits as tell it from its limit.
std::string value_text(const Measurement& measurement);
/// The limit, "none" where it is not finite.
std::string limit_text(const Measurement& measurement);
/// "12.3 s".
std::string seconds_text(double seconds);

/// value / limit: 1 is at the limit, 0 as far from it as can be, infinity past a limit of zero or for NaN.
double share_of_limit(const Measurement& measurement);

/// What kept a failed check from passing, in one line.
std::string failure_summary(const CheckResult& check);
/// Which fault was injected and which checks caught it, in one line; empty in an honest run.
std::string fault_summary(const VerifyReport& report);

/// "a, b, c".
std::string joined(const std::vector<std::string>& words);
/// `text` as one line of valid UTF-8: control characters become spaces, broken bytes U+FFFD.
std::string clean_line(std::string_view text);
/// clean_line with &, <, > and quotes escaped for XML and HTML, in text and in attributes.
std::string escape_markup(std::string_view text);

}  // namespace optp

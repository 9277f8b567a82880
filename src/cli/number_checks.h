// Checks of an option's number. CLI11's own let NaN pass, and print the largest number there is.
#pragma once

#include <CLI/CLI.hpp>

#include <cmath>
#include <string>

namespace optp::cli {

/// A finite number for which `allows` is true; the message says that it `must` be that.
template <typename Allows>
CLI::Validator number_check(Allows allows, const std::string& must, const std::string& name) {
  return CLI::Validator(
      [allows, must](std::string& text) {
        double value = 0;
        const bool fits = CLI::detail::lexical_cast(text, value) && std::isfinite(value) && allows(value);
        return fits ? std::string() : text + " must be " + must;
      },
      name);
}

inline const CLI::Validator kPositive = number_check([](double value) { return value > 0; }, "above 0", "POSITIVE");
inline const CLI::Validator kNonNegative =
    number_check([](double value) { return value >= 0; }, "0 or more", "NONNEGATIVE");

}  // namespace optp::cli

#include "src/train/units.h"

#include <cmath>
#include <cstdio>
#include <utility>

namespace optp {
namespace {

// Three digits that count: "1.23", "12.3", "123".
std::string readable_digits(double value) {
  char text[32];
  const int decimals = std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
  std::snprintf(text, sizeof(text), "%.*f", value == std::round(value) ? 0 : decimals, value);
  return text;
}

}  // namespace

std::string count_text(double count) {
  if (!std::isfinite(count)) return "-";
  for (const auto& [unit, name] : {std::pair{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}}) {
    if (std::abs(count) >= 0.9995 * unit) return readable_digits(count / unit) + name;
  }
  return readable_digits(count);
}

std::string memory_text(double bytes) {
  for (const auto& [unit, name] :
       {std::pair{1099511627776.0, " TiB"}, {1073741824.0, " GiB"}, {1048576.0, " MiB"}, {1024.0, " KiB"}}) {
    if (std::abs(bytes) >= unit) return readable_digits(bytes / unit) + name;
  }
  return readable_digits(bytes) + " B";
}

}  // namespace optp

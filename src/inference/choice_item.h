// Multiple-choice questions in a file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace optp {

struct ChoiceItem {
  std::string context;
  std::vector<std::string> choices;  ///< two or more
  int64_t answer = 0;                ///< index of the right one
};

/// Reads one JSON object a line: {"context": "...", "choices": ["...", ...], "answer": 0}. `source` stands in messages.
/// Throws c10::ValueError that names the line.
std::vector<ChoiceItem> parse_choices(const std::string& text, const std::string& source);

}  // namespace optp

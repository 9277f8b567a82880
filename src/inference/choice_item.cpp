#include "src/inference/choice_item.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <sstream>

namespace optp {
namespace {

using nlohmann::json;

// What stands in place of a choice. Of lists and objects the kind alone: writing them out takes a stack as deep as they
// nest.
std::string shown(const json& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  return value.dump();
}

ChoiceItem item_of(const json& line, const std::string& where) {
  TORCH_CHECK_VALUE(line.is_object() && line.contains("context") && line["context"].is_string(), where,
                    " has no text \"context\"; write {\"context\": \"...\", \"choices\": [\"...\"], \"answer\": 0}.");
  TORCH_CHECK_VALUE(line.contains("choices") && line["choices"].is_array() && line["choices"].size() >= 2, where,
                    " has no list \"choices\" of two or more texts; add them.");
  ChoiceItem item;
  item.context = line["context"].get<std::string>();
  for (const json& choice : line["choices"]) {
    TORCH_CHECK_VALUE(choice.is_string() && !choice.get<std::string>().empty(), where, ": a choice is ", shown(choice),
                      "; use a text of one character or more.");
    item.choices.push_back(choice.get<std::string>());
  }
  TORCH_CHECK_VALUE(line.contains("answer") && line["answer"].is_number_integer(), where,
                    " has no whole number \"answer\"; give the index of the right choice, counted from 0.");
  item.answer = line["answer"].get<int64_t>();
  TORCH_CHECK_VALUE(item.answer >= 0 && item.answer < static_cast<int64_t>(item.choices.size()), where,
                    ": \"answer\" is ", item.answer, "; use 0 to ", item.choices.size() - 1, ".");
  return item;
}

}  // namespace

std::vector<ChoiceItem> parse_choices(const std::string& text, const std::string& source) {
  std::vector<ChoiceItem> items;
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\v\f\r") == std::string::npos) continue;
    const std::string where = c10::str(source, ", line ", number);
    json parsed;
    try {
      parsed = json::parse(line);
    } catch (const json::parse_error& error) {
      TORCH_CHECK_VALUE(false, where, " is not valid JSON at byte ", error.byte, ".");
    } catch (const json::exception&) {
      TORCH_CHECK_VALUE(false, where, " is not valid JSON: a number in it is too large.");
    }
    items.push_back(item_of(parsed, where));
  }
  TORCH_CHECK_VALUE(!items.empty(), source, " holds no items; write one JSON object a line.");
  return items;
}

}  // namespace optp

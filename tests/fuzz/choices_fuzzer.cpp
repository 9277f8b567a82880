// Multiple-choice questions, one JSON object a line: every item can be scored, and is the same when written again.
#include <nlohmann/json.hpp>

#include "src/inference/choice_item.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const std::vector<optp::ChoiceItem> items = optp::parse_choices(std::string(bytes), "choices.jsonl");
    optp::expect(!items.empty());
    std::string text;
    for (const optp::ChoiceItem& item : items) {
      optp::expect(item.choices.size() >= 2);
      optp::expect(item.answer >= 0 && item.answer < static_cast<int64_t>(item.choices.size()));
      for (const std::string& choice : item.choices) optp::expect(!choice.empty());
      const nlohmann::json line = {{"context", item.context}, {"choices", item.choices}, {"answer", item.answer}};
      text += line.dump() + "\n";
    }
    const std::vector<optp::ChoiceItem> again = optp::parse_choices(text, "choices.jsonl");
    optp::expect(again.size() == items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      optp::expect(again[i].context == items[i].context && again[i].choices == items[i].choices);
      optp::expect(again[i].answer == items[i].answer);
    }
  });
}

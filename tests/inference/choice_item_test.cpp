// Files of multiple-choice questions that are damaged: each gives one sentence.
#include "src/inference/choice_item.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/support/errors.h"

namespace optp::testing {
namespace {

TEST(ChoiceItems, AreReadLineByLine) {
  const std::vector<ChoiceItem> items = parse_choices(
      "{\"context\": \"Water is\", \"choices\": [\"dry\", \"w\\u00e9t\"], \"answer\": 1}\r\n \t\r\n"
      "{\"context\": \"\", \"choices\": [\"a\", \"b\", \"c\"], \"answer\": 0}",
      "f");
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[0].context, "Water is");
  EXPECT_EQ(items[0].choices, (std::vector<std::string>{"dry", "w\u00e9t"}));
  EXPECT_EQ(items[0].answer, 1);
  EXPECT_EQ(items[1].choices.size(), 3U);
}

TEST(ChoiceItems, ErrorsNameTheLine) {
  const std::string good = R"({"context": "a", "choices": ["b", "c"], "answer": 0})";
  const auto with_choice = [](const std::string& choice) {
    return R"({"context": "", "choices": ["b", )" + choice + R"(], "answer": 0})";
  };
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  const std::map<std::string, std::string> wrong = {
      {"", "f holds no items; write one JSON object a line."},
      {good + "\n{", "f, line 2 is not valid JSON at byte 2."},
      {good + "\n\n[1e999]", "f, line 3 is not valid JSON: a number in it is too large."},
      {"[1]", "f, line 1 has no text \"context\""},
      {R"({"context": "", "choices": ["b"], "answer": 0})", "no list \"choices\" of two or more texts"},
      {with_choice("\"\""), "a choice is \"\"; use a text of one character or more."},
      {with_choice("7"), "a choice is 7;"},
      {with_choice("{}"), "a choice is an object;"},
      {with_choice(deep), "a choice is a list;"},
      {R"({"context": "", "choices": ["b", "c"], "answer": 0.5})", "no whole number \"answer\""},
      {R"({"context": "", "choices": ["b", "c"], "answer": 2})", "\"answer\" is 2; use 0 to 1."},
      {R"({"context": "", "choices": ["b", "c"], "answer": -1})", "\"answer\" is -1;"},
  };
  for (const auto& [text, expected] : wrong) {
    const std::string message = message_of<c10::ValueError>([&] { parse_choices(text, "f"); });
    EXPECT_NE(message.find(expected), std::string::npos) << text.substr(0, 100) << " -> " << message;
  }
}

}  // namespace
}  // namespace optp::testing

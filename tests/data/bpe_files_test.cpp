// vocab.json and merges.txt that are damaged: each gives one sentence.
#include "src/data/bpe_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "src/data/tokenizer.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"

namespace optp::testing {
namespace {

using namespace std::string_literals;

struct BpeDamage {
  std::string label;
  std::string vocabulary, merges;
  std::string message;  // part of what the error says
};

std::vector<BpeDamage> bpe_damages() {
  const std::string vocabulary = R"({"a":0,"b":1,"ab":2})";
  const std::string merges = "#version: 0.2\na b\n";
  return {
      {"VocabularyEmpty", "", merges, "vocab.json is empty"},
      {"VocabularyCutOff", R"({"a":0,"b")", merges, "vocab.json: it is not valid JSON at byte 11"},
      {"VocabularyNotUtf8", "{\"\xFF\":0}", merges, "it is not valid JSON at byte 3"},
      {"VocabularyWithZero", "{\"a\":0}\0{"s, merges, "it is not valid JSON at byte 7"},
      {"VocabularyGoesOn", "{\"a\":0}{", merges, "it is not valid JSON at byte 8"},
      {"VocabularyIsAnArray", "[1]", merges, "it holds an array, not an object of tokens and their ids"},
      {"VocabularyIsANumber", "1", merges, "it holds 1, not an object"},
      {"VocabularyWithoutTokens", "{}", merges, "it has no tokens"},
      {"IdNegative", R"({"a":-1})", merges, "the id of the token \"a\" is -1, not a whole number below 1048576"},
      {"IdFraction", R"({"a":0.5})", merges, "the id of the token \"a\" is 0.5"},
      {"IdHuge", R"({"a":1048576})", merges, "the id of the token \"a\" is 1048576"},
      {"IdHuger", R"({"a":99999999999999999999})", merges, "is 99999999999999999999"},
      {"IdText", R"({"a":"0"})", merges, "the id of the token \"a\" is \"0\""},
      {"IdNested", R"({"a":{"b":0}})", merges, "the id of the token \"a\" is an object"},
      {"IdTwice", R"({"a":0,"b":0})", merges, "the id 0 is given to two tokens"},
      {"TokenTwice", R"({"a":0,"a":1})", merges, "it has the token \"a\" twice"},
      {"NestingDeep", "{\"a\":" + std::string(100000, '['), merges, "the id of the token \"a\" is an array"},
      {"MergesEmpty", vocabulary, "", "merges.txt is empty"},
      {"MergeOfOne", vocabulary, "#version: 0.2\na b\nab\n", "line 3 is \"ab\", not two tokens with a space between"},
      {"MergeOfThree", vocabulary, "a b a\n", "line 1 is \"a b a\", not two tokens"},
      {"MergeOfNothing", vocabulary, "a b\n\n", "line 2 is \"\", not two tokens"},
      {"MergeUnknownLeft", vocabulary, "c b\n", "line 1 needs the token \"c\", which vocab.json lacks"},
      {"MergeUnknownRight", vocabulary, "a d\n", "line 1 needs the token \"d\""},
      {"MergeUnknownWhole", vocabulary, "a b\nb a\n", "line 2 needs the token \"ba\""},
      {"MergesBinary", vocabulary, std::string("\0\xFF\x1b[31m", 7), "merges.txt: line 1 is \""},
  };
}

TEST(BpeFilesDamage, IsRefused) {
  for (const auto& damage : bpe_damages()) {
    SCOPED_TRACE(damage.label);
    const TemporaryFolder folder;
    write_text(folder / "vocab.json", damage.vocabulary);
    write_text(folder / "merges.txt", damage.merges);
    const std::string message = message_of<c10::ValueError>([&] { read_bpe_files(folder.path()); });
    EXPECT_NE(message.find(damage.message), std::string::npos) << message;
    EXPECT_TRUE(message.find(folder.path().string()) != std::string::npos) << message;
    EXPECT_EQ(message.find_first_of("\n\0\x1b"s), std::string::npos) << message;
  }
}

TEST(BpeFiles, RefusesFoldersThatAreNoTokenizer) {
  const TemporaryFolder folder;
  const auto message = [&](const std::filesystem::path& path) {
    return message_of<c10::ValueError>([&] { open_tokenizer(path.string()); });
  };
  EXPECT_EQ(message("/nowhere"), "/nowhere is no tokenizer: use bytes, or a folder with vocab.json and merges.txt.");
  EXPECT_NE(message(folder.path()).find("vocab.json does not exist"), std::string::npos);
  write_text(folder / "vocab.json", R"({"a":0})");
  EXPECT_NE(message(folder.path()).find("merges.txt does not exist"), std::string::npos);
  EXPECT_EQ(tokenizer_of_model(folder.path()), folder.path().string());
  std::filesystem::remove(folder / "vocab.json");
  write_text(folder / "tokenizer.json", "{}");
  EXPECT_NE(message_of<c10::ValueError>([&] { tokenizer_of_model(folder.path()); }).find("tokenizer.json alone"),
            std::string::npos);
}

// Files with a few bytes changed, left out or doubled: they are refused with a sentence, or make a tokenizer that gives
// back what it is given.
TEST(BpeFiles, SurvivesChangedBytes) {
  const TemporaryFolder folder;
  const std::string vocabulary = read_file(OPTP_GOLDEN "/tokenizer/vocab.json");
  const std::string merges = read_file(OPTP_GOLDEN "/tokenizer/merges.txt");
  std::mt19937 random(6);
  const std::string bytes = "\0\n\r \"\\{}[]:,0129-eE.\xC4\xA0\xFF"s;
  const auto damaged = [&](std::string text) {
    for (size_t i = 0, count = 1 + random() % 3; i < count; ++i) {
      const size_t place = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[place] = bytes[random() % bytes.size()];
          break;
        case 1:
          text.erase(place, 1 + random() % 20);
          break;
        case 2:
          text.insert(place, text.substr(random() % text.size(), 1 + random() % 20));
          break;
        default:
          text.resize(place + 1);
      }
    }
    return text;
  };
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    write_text(folder / "vocab.json", round % 2 == 0 ? damaged(vocabulary) : vocabulary);
    write_text(folder / "merges.txt", round % 2 == 1 ? damaged(merges) : merges);
    try {
      const auto tokenizer = open_tokenizer(folder.path().string());
      const std::string text = "Licensed under the Apache License, Version 2.0 \xFF\u00e9";
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    } catch (const c10::ValueError&) {
      ++refused;
    }
  }
  EXPECT_TRUE(refused > 200 && refused < 400) << refused;
}

TEST(BpeFiles, ReadsWhatIsUnusualAndRight) {
  const TemporaryFolder folder;
  // Carriage returns, no last newline, a gap in the ids, tokens that no bytes spell, of two equal merges the later.
  write_text(folder / "vocab.json", "{\"a\":7,\"b\":1,\"ab\":2,\"\u0120b\":3,\"\u65e5\":4,\"\":5,\"\u0120\":6}");
  write_text(folder / "merges.txt", "#version: 0.2\r\na b\r\n\u0120 b\r\na b");
  const BpeFiles files = read_bpe_files(folder.path());
  EXPECT_EQ(files.merges.size(), 3);
  EXPECT_EQ(files.tokens.size(), 8);
  EXPECT_FALSE(files.tokens[0].has_value());
  EXPECT_EQ(files.tokens[3], " b");
  EXPECT_EQ(files.tokens[4], "\u65e5");
  EXPECT_EQ(files.tokens[5], "");
  EXPECT_EQ(files.bytes['a'], 7);
  EXPECT_FALSE(files.bytes['c'].has_value());
  const auto tokenizer = open_tokenizer(folder.path().string());
  EXPECT_EQ(tokenizer->encode("ab b"), (std::vector<int64_t>{2, 3}));
  EXPECT_FALSE(tokenizer->has_token(0));
  EXPECT_NE(message_of<c10::ValueError>([&] { tokenizer->encode("abc"); }).find("no token for the byte 99"),
            std::string::npos);
}

}  // namespace
}  // namespace optp::testing

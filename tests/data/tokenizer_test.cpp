// What every tokenizer promises, on the one that needs no files; and text that arrives token by token.
#include "src/data/tokenizer.h"

#include <gtest/gtest.h>

#include "src/data/detokenizer.h"
#include "src/data/utf8.h"
#include "tests/support/errors.h"

namespace optp::testing {
namespace {

using namespace std::string_literals;

std::string all_bytes() {
  std::string text;
  for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
  return text;
}

TEST(ByteTokenizer, GivesEveryByteAnIdBehindTheSpecialOnes) {
  const auto tokenizer = open_tokenizer("bytes");
  EXPECT_EQ(tokenizer->encode("\0 \xff"s), (std::vector<int64_t>{4, 36, 259}));
  EXPECT_EQ(tokenizer->encode("</s>").size(), 4);  // plain text
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(all_bytes())), all_bytes());
  EXPECT_EQ(tokenizer->vocab_size(), 260);
  EXPECT_EQ(tokenizer->decode({kEndToken, kPadToken, 69}), "</s><pad>A");
  EXPECT_TRUE(tokenizer->has_token(0) && tokenizer->has_token(259));
  EXPECT_FALSE(tokenizer->has_token(-1) || tokenizer->has_token(260));
  EXPECT_EQ(message_of<c10::ValueError>([&] { tokenizer->decode({4, 260}); }),
            "id 260 has no token: those of the tokenizer bytes are 0 to 259.");
  EXPECT_EQ(message_of<c10::ValueError>([&] { tokenizer->token(-1); }),
            "id -1 has no token: those of the tokenizer bytes are 0 to 259.");
}

// Each case as Python's bytes.decode("utf-8", "replace") gives it.
TEST(Utf8, ReplacesWhatIsNoCharacter) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("plain text, \u00e9\u20ac\U0001F600"), "plain text, \u00e9\u20ac\U0001F600");
  EXPECT_EQ(replace_invalid_utf8("\0"s), "\0"s);
  EXPECT_EQ(replace_invalid_utf8("a\x80z"), "a" + bad + "z");
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80"), bad + bad);                      // overlong
  EXPECT_EQ(replace_invalid_utf8("\xE0\x9F\xBF"), bad + bad + bad);            // overlong
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), bad + bad + bad);            // a surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), bad + bad + bad + bad);  // beyond U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("\xF5"), bad);
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82z"), bad + "z");  // one for a character cut short
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98"), bad);
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\xE2\x82\xAC"), bad + "\u20ac");
}

TEST(Utf8, FindsAnUnfinishedCharacterAtTheEnd) {
  EXPECT_EQ(incomplete_utf8_size(""), 0);
  EXPECT_EQ(incomplete_utf8_size("abc"), 0);
  EXPECT_EQ(incomplete_utf8_size("\u20ac"), 0);
  EXPECT_EQ(incomplete_utf8_size("a\xE2"), 1);
  EXPECT_EQ(incomplete_utf8_size("a\xE2\x82"), 2);
  EXPECT_EQ(incomplete_utf8_size("\xF0\x9F\x98"), 3);
  EXPECT_EQ(incomplete_utf8_size("\xC0"), 0);
  EXPECT_EQ(incomplete_utf8_size("\xED\xA0"), 0);
}

TEST(Detokenizer, GivesWholeCharacters) {
  const auto tokenizer = open_tokenizer("bytes");
  Detokenizer detokenizer(*tokenizer);
  std::vector<std::string> pieces;
  for (const int64_t id : tokenizer->encode("a\u20ac\xF0\x9F!\xFF\xE2")) pieces.push_back(detokenizer.push(id));
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(pieces, (std::vector<std::string>{"a", "", "", "\u20ac", "", "", bad + "!", bad, ""}));
  EXPECT_EQ(detokenizer.finish(), bad);
  EXPECT_EQ(detokenizer.push(69), "A");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, GivesWhatDecodingAtOnceGives) {
  const auto tokenizer = open_tokenizer("bytes");
  Detokenizer detokenizer(*tokenizer);
  uint32_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 8; ++i) {
      state = state * 1664525 + 1013904223;
      // Mostly bytes that begin or continue a character.
      text += "\xE0\xED\xF0\xF4\xC3\x80\x8F\x90\x9F\xA0\xBF\xE2\x82\xAC\x41\xF8"[state >> 28];
    }
    std::string streamed;
    for (const int64_t id : tokenizer->encode(text)) streamed += detokenizer.push(id);
    streamed += detokenizer.finish();
    EXPECT_EQ(streamed, replace_invalid_utf8(text));
    EXPECT_EQ(valid_utf8_size(streamed), streamed.size());
  }
}

TEST(Tokenizer, OfAModelIsItsFolderOrBytes) {
  EXPECT_EQ(tokenizer_of_model(OPTP_GOLDEN "/base"), "bytes");
  EXPECT_EQ(tokenizer_of_model("/nowhere"), "bytes");
}

}  // namespace
}  // namespace optp::testing

// Check "generation": when a continuation ends, and what of its text can be shown.
#include "src/inference/continuation.h"

#include <gtest/gtest.h>

#include <memory>

namespace optp {
namespace {

struct Shown {
  std::string pieces;  // with a bar behind each push
  std::string text, finish;
  size_t tokens = 0;
};

// Pushes the bytes of `text`, one token each, until the continuation ends; "\n" stands for the end id.
Shown push_all(const std::string& text, const std::vector<std::string>& stops, int64_t max_new_tokens = 100) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer("bytes");
  const ContinuationRules rules{max_new_tokens, kEndToken, {kEndToken}, stops};
  Continuation continuation(tokenizer.get(), rules);
  Shown shown;
  for (const char c : text) {
    if (continuation.finished()) break;
    shown.pieces += continuation.push(c == '\n' ? kEndToken : 4 + static_cast<unsigned char>(c)) + "|";
  }
  shown.text = continuation.text();
  shown.finish = continuation.finish();
  shown.tokens = continuation.ids().size();
  return shown;
}

TEST(Continuation, EndsAtTheEndIdOrAtItsLength) {
  const Shown ended = push_all("ab\ncd", {});
  EXPECT_EQ(ended.pieces, "a|b||");
  EXPECT_EQ(ended.text, "ab");
  EXPECT_EQ(ended.finish, "stop");
  EXPECT_EQ(ended.tokens, 3U);  // the end id counts
  const Shown full = push_all("abcd", {}, 3);
  EXPECT_EQ(full.text, "abc");
  EXPECT_EQ(full.finish, "length");
  EXPECT_EQ(push_all("abc", {}).finish, "");
}

TEST(Continuation, HoldsBackWhatMayBecomeAStopText) {
  const Shown stopped = push_all("x END. y", {"END.", "never"});
  EXPECT_EQ(stopped.pieces, "x| |||||");  // E, EN, END may be the beginning
  EXPECT_EQ(stopped.text, "x ");
  EXPECT_EQ(stopped.finish, "stop");
  EXPECT_EQ(push_all("an EN then\n", {"END"}).pieces, "a|n| |||EN |t|h|e|n||");  // "e", "n" are no "E", "N"
}

TEST(Continuation, TheFirstStopTextCutsWhateverItsLength) {
  EXPECT_EQ(push_all("abcdef", {"cde", "bcdef"}).text, "ab");  // complete first, though the other begins earlier
  EXPECT_EQ(push_all("abc", {"", "c"}).text, "ab");            // an empty one never matches
}

TEST(Continuation, ShowsWholeCharacters) {
  EXPECT_EQ(push_all("\xC3\xA9\xE2\x82\xAC!", {}).pieces, "|\xC3\xA9|||\xE2\x82\xAC|!|");
  // A character that never gets complete is shown as U+FFFD at the end, and so is a byte that begins none.
  EXPECT_EQ(push_all("a\xE2\x82\n", {}).pieces, "a|||\xEF\xBF\xBD|");
  EXPECT_EQ(push_all("\xFFz", {}).pieces, "\xEF\xBF\xBD|z|");
}

}  // namespace
}  // namespace optp

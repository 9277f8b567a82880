// The byte-level BPE against ids that `tokenizers` gave (golden/tokenizer), whole and in pieces. The real vocabulary
// and longer texts are in launched/tokenizers_test.py.
#include "src/data/bpe_tokenizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>
#include <random>
#include <utility>

#include "src/data/bpe_merger.h"
#include "src/data/utf8.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"

namespace optp::testing {
namespace {

using namespace std::string_literals;
using Ids = std::vector<int64_t>;

constexpr const char* kGoldenTokenizer = OPTP_GOLDEN "/tokenizer";

struct GoldenText {
  std::string text;
  Ids ids;
};

std::vector<GoldenText> golden_texts() {
  std::vector<GoldenText> texts;
  for (const auto& [hexadecimal, ids] : nlohmann::json::parse(read_file(kGoldenTokenizer + "/cases.json"s))
                                            .get<std::vector<std::pair<std::string, Ids>>>()) {
    std::string text;
    for (size_t i = 0; i < hexadecimal.size(); i += 2) {
      text += static_cast<char>(std::stoi(hexadecimal.substr(i, 2), nullptr, 16));
    }
    texts.push_back({text, ids});
  }
  return texts;
}

// Hands a text over piece by piece, as long as `size_of_piece` says.
Ids encode_in_pieces(const Tokenizer& tokenizer, std::string_view text, const std::function<size_t()>& size_of_piece) {
  Ids ids;
  std::string held;
  for (;;) {
    const std::string_view piece = text.substr(0, size_of_piece());
    text.remove_prefix(piece.size());
    held += piece;
    held.erase(0, tokenizer.encode_beginning(held, text.empty(), ids));
    if (text.empty()) break;
  }
  EXPECT_EQ(held, "");
  return ids;
}

TEST(BpeTokenizer, GivesTheIdsOfTokenizers) {
  const auto tokenizer = open_tokenizer(kGoldenTokenizer);
  size_t count = 0;
  for (int round = 0; round < 2; ++round) {  // the second time from the cache of words
    for (const GoldenText& golden : golden_texts()) {
      EXPECT_EQ(tokenizer->encode(golden.text), golden.ids) << ::testing::PrintToString(golden.text);
      EXPECT_EQ(tokenizer->decode(golden.ids), golden.text);
      ++count;
    }
  }
  EXPECT_GT(count, 700);
}

TEST(BpeTokenizer, KnowsItsIds) {
  const auto tokenizer = open_tokenizer(kGoldenTokenizer);
  EXPECT_EQ(tokenizer->vocab_size(), 700);
  EXPECT_TRUE(tokenizer->has_token(0) && tokenizer->has_token(699));
  EXPECT_FALSE(tokenizer->has_token(-1) || tokenizer->has_token(700));
  EXPECT_EQ(tokenizer->decode({kEndToken, 4, kPadToken}), "</s>!<pad>");
  EXPECT_EQ(message_of<c10::ValueError>([&] { tokenizer->decode({4, 700}); }),
            "id 700 has no token in " + std::string(kGoldenTokenizer) +
                "/vocab.json; use the tokenizer that the ids come from.");
  EXPECT_EQ(tokenizer->fingerprint().size(), 32);
}

TEST(BpeTokenizer, NoCutOfATextChangesItsIds) {
  const auto tokenizer = open_tokenizer(kGoldenTokenizer);
  std::mt19937 random(1);
  for (const GoldenText& golden : golden_texts()) {
    for (size_t cut = 0; cut <= std::min<size_t>(golden.text.size(), 60); ++cut) {
      bool first = true;
      const auto once = [&] { return std::exchange(first, false) ? cut : golden.text.size(); };
      EXPECT_EQ(encode_in_pieces(*tokenizer, golden.text, once), golden.ids) << "cut at " << cut;
    }
    for (const size_t longest : {1, 3, 20}) {
      EXPECT_EQ(encode_in_pieces(*tokenizer, golden.text, [&] { return 1 + random() % longest; }), golden.ids);
    }
  }
}

// A byte that is no character is split off like a symbol, here U+0001, and merged as what it is.
TEST(BpeTokenizer, KeepsWhatIsNotUtf8) {
  const auto tokenizer = open_tokenizer(kGoldenTokenizer);
  std::mt19937 random(2);
  const std::string alphabet = "\x80\xBF\xC0\xC3\xE2\xED\xF0\xF4\xFF as1'\n\xC3\xA9";
  const BpeFiles files = read_bpe_files(kGoldenTokenizer);
  const BpeMerger merger(files);
  const WordSplitter splitter;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (size_t i = 0, size = 1 + random() % 12; i < size; ++i) text += alphabet[random() % alphabet.size()];
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids), text);
    EXPECT_EQ(encode_in_pieces(*tokenizer, text, [&] { return 1 + random() % 3; }), ids);

    // The words are those of the text with symbols in place of the bytes.
    std::string symbols;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Unit unit = first_utf8_unit(rest);
      const bool valid = unit.kind == Utf8Unit::Kind::kCharacter;
      symbols += valid ? std::string(rest.substr(0, unit.size)) : std::string(unit.size, '\x01');
      rest.remove_prefix(unit.size);
    }
    Ids expected;
    for (size_t done = 0; done < text.size();) {
      const size_t size = splitter.first_word(std::string_view(symbols).substr(done), /*last=*/true).value();
      merger.encode(text.substr(done, size), expected);
      done += size;
    }
    EXPECT_EQ(ids, expected);
  }
}

// Words of several MB: they are merged window by window, and handed on before they end.
TEST(BpeTokenizer, MergesWordsOfAnySizeInWindows) {
  const BpeTokenizer tokenizer(kGoldenTokenizer);
  const BpeFiles files = read_bpe_files(kGoldenTokenizer);
  const BpeMerger merger(files);
  ASSERT_GT(merger.reach(), 0);
  ASSERT_LT(merger.reach(), 4000);
  constexpr size_t kSize = 1'500'000;
  std::mt19937 random(3);
  const auto run_of = [&](std::vector<std::string> characters) {
    std::string word;
    while (word.size() < kSize) word += characters[random() % characters.size()];
    return word;
  };
  const std::vector<std::string> words = {
      std::string(kSize, 'a'),           " " + run_of({"a", "b", "e", "n", "o", "r", "s", "t", "i", "c", "L"}),
      run_of({"0", "1", "2", "3"}),      run_of({"'", "!", ".", "-"}),
      std::string(kSize, '\''),          std::string(kSize, '\0'),
      std::string(kSize, '\n'),          run_of({"\xFF", "\x80", "\xC3"}),
      run_of({"\u00e9", "\u4e2d", "e"}),
  };
  for (const std::string& word : words) {
    SCOPED_TRACE(::testing::PrintToString(word.substr(0, 20)));
    Ids whole;
    merger.encode(word, whole);
    EXPECT_TRUE(tokenizer.encode(word) == whole);
    size_t longest_held = 0;
    Ids ids;
    std::string held;
    for (size_t first = 0; first < word.size(); first += 300'000) {
      held += word.substr(first, 300'000);
      held.erase(0, tokenizer.encode_beginning(held, /*last=*/false, ids));
      longest_held = std::max(longest_held, held.size());
    }
    EXPECT_LT(longest_held, 1'400'000);
    tokenizer.encode_beginning(held, /*last=*/true, ids);
    EXPECT_TRUE(ids == whole);
  }
}

// What the mathematics in bpe_merger.h promises, on windows so short that every cut is near: tokens that end reach()
// bytes before a cut are those of the whole word.
TEST(BpeMerger, WhatLiesBeyondTheReachOfACutStays) {
  const BpeFiles files = read_bpe_files(kGoldenTokenizer);
  BpeFiles few = files;
  few.merges.resize(60);  // a short reach
  const BpeMerger merger(few);
  ASSERT_GT(merger.reach(), 0);
  ASSERT_LT(merger.reach(), 200);
  std::mt19937 random(4);
  const std::string letters = "aaaaentrihes ";
  for (int round = 0; round < 300; ++round) {
    std::string word;
    for (int i = 0; i < 600; ++i) word += letters[random() % (1 + round % letters.size())];
    Ids whole;
    merger.encode(word, whole);
    const size_t cut = merger.reach() + random() % (word.size() - merger.reach());
    Ids beginning;
    merger.encode(word.substr(0, cut), beginning);
    size_t end = 0;
    for (size_t i = 0; i < beginning.size(); ++i) {
      end += few.tokens[static_cast<size_t>(beginning[i])]->size();
      if (end + merger.reach() > cut) break;
      ASSERT_EQ(beginning[i], whole[i]) << "token " << i << " before the cut at " << cut;
    }
  }
}

TEST(BpeMerger, HasNoReachWhereMergesAreDisorderly) {
  const BpeFiles files = read_bpe_files(kGoldenTokenizer);
  BpeFiles reversed = files;
  std::reverse(reversed.merges.begin(), reversed.merges.end());
  EXPECT_EQ(BpeMerger(reversed).reach(), 0);
}

}  // namespace
}  // namespace optp::testing

// Where a text is cut into words: at characters, at the same places however the text arrives, and in ASCII where
// GPT-2's pattern says.
#include <algorithm>
#include <vector>

#include "src/data/utf8.h"
#include "src/data/word_splitter.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

enum class Class { kSpace, kLetter, kNumber, kSymbol };

Class class_of(char c) {
  if (c == ' ' || (c >= '\t' && c <= '\r')) return Class::kSpace;
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Class::kLetter;
  return c >= '0' && c <= '9' ? Class::kNumber : Class::kSymbol;
}

// '(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ by hand.
size_t ascii_word(std::string_view text) {
  for (const std::string_view ending : {"'s", "'t", "'m", "'d", "'re", "'ve", "'ll"}) {
    if (text.starts_with(ending)) return ending.size();
  }
  const auto run = [&](size_t from) {
    const auto same = [&](char c) { return class_of(c) == class_of(text[from]); };
    return static_cast<size_t>(std::find_if_not(text.begin() + from, text.end(), same) - text.begin());
  };
  const size_t from = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  if (class_of(text[from]) != Class::kSpace) return run(from);
  const size_t spaces = run(0);
  return spaces == text.size() || spaces == 1 ? spaces : spaces - 1;
}

// Whatever is said of a beginning of the text must be right for the whole: all cuts near the word's ends are tried.
void check_cuts(const WordSplitter& splitter, std::string_view text, size_t word) {
  constexpr size_t kNear = 12;
  const size_t longest = std::min(text.size(), word + kNear);
  for (size_t cut = 1; cut <= longest; ++cut) {
    if (cut == kNear && word > 2 * kNear) cut = word - kNear;
    if (valid_utf8_size(text.substr(0, cut)) != cut) continue;
    const std::optional<size_t> found = splitter.first_word(text.substr(0, cut), /*last=*/false);
    expect(!found || *found == word);
  }
}

void check_words(const WordSplitter& splitter, std::string_view text) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  while (!text.empty()) {
    const std::optional<size_t> word = splitter.first_word(text, /*last=*/true);
    expect(word && *word > 0 && *word <= text.size() && valid_utf8_size(text.substr(0, *word)) == *word);
    const std::string_view seen = text.substr(0, *word + 1);  // what decides about the word
    if (std::all_of(seen.begin(), seen.end(), is_ascii)) expect(*word == ascii_word(text));
    check_cuts(splitter, text, *word);
    text.remove_prefix(*word);
  }
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const optp::WordSplitter splitter;
  return optp::fuzz(data, size,
                    [](std::string_view bytes) { optp::check_words(splitter, optp::replace_invalid_utf8(bytes)); });
}

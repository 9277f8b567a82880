// Where GPT-2's tokenizer cuts a text into words.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

namespace optp {

/// The words are English contractions, runs of letters, of numbers or of symbols, each with one space before it where
/// there is one, and what is left of white space; together they are the text (the pattern of GPT-2's encoder.py).
/// Letters, numbers and white space are those of Unicode 16, as in `tokenizers` 0.22.
class WordSplitter {
 public:
  WordSplitter();
  ~WordSplitter();
  WordSplitter(const WordSplitter&) = delete;
  WordSplitter& operator=(const WordSplitter&) = delete;

  /// Size in bytes of the word that `text` begins with; `text` is well-formed UTF-8 and not empty. Unless this is the
  /// `last` of the text, nothing is returned where more of it might make the word longer: whatever is returned holds
  /// for every continuation.
  std::optional<size_t> first_word(std::string_view text, bool last) const;

 private:
  struct Pattern;
  std::unique_ptr<Pattern> pattern_;
};

}  // namespace optp

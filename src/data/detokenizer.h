// Generated ids to text while they come.
#pragma once

#include <cstdint>
#include <string>

#include "src/data/tokenizer.h"

namespace optp {

/// A token may end inside a character, so text is given out in whole UTF-8 characters: the results of all calls put
/// together are the text of all ids, with U+FFFD for what is not UTF-8, as `tokenizers` decodes it.
class Detokenizer {
 public:
  /// `tokenizer` must outlive it.
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// Adds one id; returns the characters that it completes, often none or several. Throws when it has no token.
  std::string push(int64_t id);

  /// The end: returns U+FFFD if a character was left incomplete, else nothing. The next push begins a new text.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string held_;  // the beginning of a character
};

}  // namespace optp

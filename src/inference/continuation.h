// One text that is being generated: its ids, its text, and whether it has ended.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/data/detokenizer.h"
#include "src/data/tokenizer.h"

namespace optp {

/// What ends a continuation, and which ids are no text.
struct ContinuationRules {
  int64_t max_new_tokens = 0;
  int64_t end_id = 2;
  std::vector<int64_t> silent_ids;  ///< special tokens, which the text leaves out
  std::vector<std::string> stops;   ///< texts; empty ones never match
};

class Continuation {
 public:
  /// `tokenizer` may be null: no text, no stop texts. Both arguments must outlive the continuation.
  Continuation(const Tokenizer* tokenizer, const ContinuationRules& rules);

  /// Adds the next id. Returns the text that can be shown now: no character that may go on in the next token, and
  /// nothing that may turn out to begin a stop text. The pieces together are text().
  std::string push(int64_t id);

  bool finished() const { return !finish_.empty(); }
  /// "stop" or "length"; empty while it goes on.
  const std::string& finish() const { return finish_; }
  const std::vector<int64_t>& ids() const { return ids_; }
  /// The whole characters of all tokens so far, with U+FFFD for what is not UTF-8; a stop text and what follows it are
  /// cut off.
  const std::string& text() const { return text_; }

 private:
  // Cuts text_ in front of the first stop text that begins at or after `from`; whether there was one.
  bool cut_at_stop(size_t from);
  // How many bytes at the end of text_ may be the beginning of a stop text.
  size_t possible_stop() const;

  std::optional<Detokenizer> detokenizer_;  // none without a tokenizer
  const ContinuationRules* rules_;
  std::vector<int64_t> ids_;
  std::string text_;
  std::string finish_;
  size_t shown_ = 0;  // bytes of text_ that push() has returned
};

}  // namespace optp

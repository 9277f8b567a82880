#include "src/data/detokenizer.h"

#include <utility>

#include "src/data/utf8.h"

namespace optp {

std::string Detokenizer::push(int64_t id) {
  held_ += tokenizer_.token(id);
  const size_t ready = held_.size() - incomplete_utf8_size(held_);
  std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, ready));
  held_.erase(0, ready);
  return text;
}

std::string Detokenizer::finish() { return replace_invalid_utf8(std::exchange(held_, {})); }

}  // namespace optp

#include "src/inference/continuation.h"

#include <algorithm>
#include <string_view>

#include "src/data/utf8.h"

namespace optp {

Continuation::Continuation(const Tokenizer* tokenizer, const ContinuationRules& rules)
    : tokenizer_(tokenizer), rules_(&rules) {}

std::string Continuation::push(int64_t id) {
  ids_.push_back(id);
  const size_t length = text_.size();
  const auto& silent = rules_->silent_ids;
  if (tokenizer_ && std::find(silent.begin(), silent.end(), id) == silent.end()) text_ += tokenizer_->token(id);

  size_t longest = 0;
  for (const std::string& stop : rules_->stops) longest = std::max(longest, stop.size());
  if (cut_at_stop(length - std::min(length, longest)) || id == rules_->end_id) {
    finish_ = "stop";
  } else if (static_cast<int64_t>(ids_.size()) >= rules_->max_new_tokens) {
    finish_ = "length";
  }
  const size_t held_back = finished() ? 0 : possible_stop();
  const std::string_view fresh = std::string_view(text_).substr(shown_, text_.size() - held_back - shown_);
  const size_t whole = finished() ? fresh.size() : fresh.size() - incomplete_utf8_size(fresh);
  shown_ += whole;
  return replace_invalid_utf8(fresh.substr(0, whole));
}

bool Continuation::cut_at_stop(size_t from) {
  size_t first = std::string::npos;
  for (const std::string& stop : rules_->stops) {
    if (!stop.empty()) first = std::min(first, text_.find(stop, from));
  }
  if (first == std::string::npos) return false;
  text_.resize(first);
  return true;
}

size_t Continuation::possible_stop() const {
  size_t longest = 0;
  for (const std::string& stop : rules_->stops) {
    for (size_t size = std::min(stop.size(), text_.size()); size > longest; --size) {
      if (text_.compare(text_.size() - size, size, stop, 0, size) == 0) longest = size;
    }
  }
  return longest;
}

}  // namespace optp

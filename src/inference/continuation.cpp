#include "src/inference/continuation.h"

#include <algorithm>
#include <utility>

namespace optp {

Continuation::Continuation(const Tokenizer* tokenizer, const ContinuationRules& rules) : rules_(&rules) {
  if (tokenizer) detokenizer_.emplace(*tokenizer);
}

std::string Continuation::push(int64_t id) {
  ids_.push_back(id);
  const size_t length = text_.size();
  const auto& silent = rules_->silent_ids;
  if (detokenizer_ && std::find(silent.begin(), silent.end(), id) == silent.end()) text_ += detokenizer_->push(id);

  size_t longest = 0;
  for (const std::string& stop : rules_->stops) longest = std::max(longest, stop.size());
  if (cut_at_stop(length - std::min(length, longest))) {
    finish_ = "stop";
  } else if (id == rules_->end_id || static_cast<int64_t>(ids_.size()) >= rules_->max_new_tokens) {
    finish_ = id == rules_->end_id ? "stop" : "length";
    if (detokenizer_) text_ += detokenizer_->finish();
  }
  const size_t shown = std::exchange(shown_, text_.size() - (finished() ? 0 : possible_stop()));
  return text_.substr(shown, shown_ - shown);
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

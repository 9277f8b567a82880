#include "src/data/bpe_merger.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <limits>

namespace optp {
namespace {

uint64_t pair_of(uint32_t high, uint32_t low) { return uint64_t{high} << 32 | low; }

}  // namespace

size_t BpeMerger::Hash::operator()(uint64_t pair) const {
  pair *= 0x9E3779B97F4A7C15;
  return pair ^ pair >> 32;
}

BpeMerger::BpeMerger(const BpeFiles& files) : files_(files) {
  ranks_.reserve(files.merges.size());
  std::vector<uint32_t> maker(files.tokens.size(), 0);  // one more than the rank of the last merge that makes a token
  for (uint32_t rank = 0; rank < files.merges.size(); ++rank) {
    const BpeFiles::Merge& merge = files.merges[rank];
    ranks_[pair_of(merge.left, merge.right)] = rank;
    maker[merge.merged] = rank + 1;
  }
  bool orderly = true;
  for (uint32_t rank = 0; rank < files.merges.size(); ++rank) {
    const BpeFiles::Merge& merge = files.merges[rank];
    orderly = orderly && maker[merge.left] <= rank && maker[merge.right] <= rank;
    reach_ += files.tokens[merge.left]->size();
  }
  if (!orderly) reach_ = 0;
}

uint32_t BpeMerger::rank_of(uint32_t left, uint32_t right) const {
  const auto found = ranks_.find(pair_of(left, right));
  return found == ranks_.end() ? kNoRank : found->second;
}

void BpeMerger::encode(std::string_view word, std::vector<int64_t>& ids) const {
  TORCH_CHECK_VALUE(word.size() <= std::numeric_limits<int32_t>::max(), "a word of ", word.size(),
                    " bytes is too long for these merges; split the text.");
  const auto end = static_cast<uint32_t>(word.size());
  symbols_.resize(end);
  for (uint32_t i = 0; i < end; ++i) {
    const std::optional<uint32_t>& id = files_.bytes[static_cast<unsigned char>(word[i])];
    TORCH_CHECK_VALUE(id, files_.folder.string(), "/vocab.json has no token for the byte ",
                      int{static_cast<unsigned char>(word[i])},
                      ", which stands in the text; use a vocabulary with all ", "256 bytes.");
    symbols_[i] = {*id, kNoRank, i - 1, i + 1};
  }
  queue_.clear();
  const auto queue_pair = [&](uint32_t left) {
    Symbol& symbol = symbols_[left];
    symbol.rank = symbol.next < end ? rank_of(symbol.id, symbols_[symbol.next].id) : kNoRank;
    if (symbol.rank == kNoRank) return false;
    queue_.push_back(pair_of(symbol.rank, left));
    return true;
  };
  for (uint32_t i = 0; i < end; ++i) queue_pair(i);
  std::make_heap(queue_.begin(), queue_.end(), std::greater<>());

  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(queue_.back() >> 32);
    const auto left = static_cast<uint32_t>(queue_.back());
    queue_.pop_back();
    Symbol& symbol = symbols_[left];
    if (symbol.rank != rank) continue;  // one of the two has been merged meanwhile
    Symbol& right = symbols_[symbol.next];
    right.rank = kNoRank;
    symbol.id = files_.merges[rank].merged;
    symbol.next = right.next;
    if (symbol.next < end) symbols_[symbol.next].previous = left;
    if (queue_pair(left)) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
    if (left > 0 && queue_pair(symbol.previous)) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }
  for (uint32_t i = 0; i < end; i = symbols_[i].next) ids.push_back(symbols_[i].id);
}

}  // namespace optp

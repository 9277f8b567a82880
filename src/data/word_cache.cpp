#include "src/data/word_cache.h"

#include <cstring>

namespace optp {
namespace {

constexpr size_t kSlots = size_t{1} << 16;
constexpr size_t kMostWords = kSlots / 2;

uint64_t word_hash(std::string_view word) {
  uint64_t hash = word.size();
  while (!word.empty()) {
    uint64_t bytes = 0;
    const size_t taken = std::min(word.size(), sizeof(bytes));
    std::memcpy(&bytes, word.data(), taken);
    hash = (hash ^ bytes) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
    word.remove_prefix(taken);
  }
  return hash;
}

}  // namespace

WordCache::WordCache() : slots_(kSlots) {}

// The word's slot, or the free one where it belongs.
size_t WordCache::slot_of(std::string_view word, uint64_t hash) const {
  size_t index = hash % kSlots;
  for (;; index = (index + 1) % kSlots) {
    const Slot& slot = slots_[index];
    if (slot.size == 0) return index;
    if (slot.hash == hash && slot.size == word.size() &&
        std::memcmp(text_.data() + slot.text, word.data(), word.size()) == 0) {
      return index;
    }
  }
}

bool WordCache::find(std::string_view word, std::vector<int64_t>& ids) const {
  const Slot& slot = slots_[slot_of(word, word_hash(word))];
  if (slot.size == 0) return false;
  for (uint32_t i = 0; i < slot.count; ++i) ids.push_back(ids_[slot.ids + i]);
  return true;
}

void WordCache::add(std::string_view word, c10::ArrayRef<int64_t> ids) {
  if (used_ == kMostWords) *this = WordCache();
  const uint64_t hash = word_hash(word);
  slots_[slot_of(word, hash)] = {hash, static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(ids_.size()),
                                 static_cast<uint32_t>(word.size()), static_cast<uint32_t>(ids.size())};
  text_ += word;
  for (const int64_t id : ids) ids_.push_back(static_cast<uint32_t>(id));
  ++used_;
}

}  // namespace optp

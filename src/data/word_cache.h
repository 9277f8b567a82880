// The ids of words that were met before.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace optp {

/// Holds short words only, and so many that it stays in the processor's caches; begins anew when it is full.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 64;  ///< in bytes

  WordCache();

  /// Appends the word's ids and returns true, or returns false. At most kLongestWord bytes, and not none.
  bool find(std::string_view word, std::vector<int64_t>& ids) const;
  /// The ids of a word that was not found.
  void add(std::string_view word, c10::ArrayRef<int64_t> ids);

 private:
  struct Slot {
    uint64_t hash = 0;
    uint32_t text = 0, ids = 0;  // where they begin in text_, ids_
    uint32_t size = 0;           // of the word; 0: the slot is free
    uint32_t count = 0;          // of ids
  };

  size_t slot_of(std::string_view word, uint64_t hash) const;

  std::vector<Slot> slots_;
  size_t used_ = 0;
  std::string text_;
  std::vector<uint32_t> ids_;
};

}  // namespace optp

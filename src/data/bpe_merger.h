// Byte pair encoding of one word.
#pragma once

#include <c10/util/flat_hash_map.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "src/data/bpe_files.h"

namespace optp {

/// Merges neighbours, the most important pair first, of equal ones the leftmost, until none is left to merge
/// (Sennrich, Haddow and Birch, 2016, as `tokenizers` computes it).
class BpeMerger {
 public:
  explicit BpeMerger(const BpeFiles& files);

  /// Appends the ids of `word`, which is not empty and below 2^31 bytes. Throws c10::ValueError when the vocabulary
  /// lacks one of its bytes.
  void encode(std::string_view word, std::vector<int64_t>& ids) const;

  /// How far the end of a word reaches back: let a word be cut off and encoded. Tokens that end `reach()` bytes or more
  /// before the cut are those of the whole word. 0: there is no such distance.
  ///
  /// Why: call merges orderly when what a merge makes is only used by less important ones. Then encoding runs through
  /// the merges once, in their order, and each replaces its pair wherever it stands, from left to right. The whole word
  /// and the cut one begin with the same symbols, at first up to the cut. A merge keeps that so for all but one symbol:
  /// the last common one, if it is the left half of the pair, may find its right half in one of the two alone. So each
  /// merge moves the end of what is common to the left by the length of its left half at most, and all together by the
  /// sum of those lengths.
  size_t reach() const { return reach_; }

 private:
  struct Hash {
    size_t operator()(uint64_t pair) const;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  uint32_t rank_of(uint32_t left, uint32_t right) const;

  const BpeFiles& files_;
  ska::flat_hash_map<uint64_t, uint32_t, Hash> ranks_;  // of the pairs
  size_t reach_ = 0;

  struct Symbol {
    uint32_t id;
    uint32_t rank;  // of the pair that it begins
    uint32_t previous, next;
  };
  mutable std::vector<Symbol> symbols_;
  mutable std::vector<uint64_t> queue_;  // a heap of rank << 32 | position of the left symbol
};

}  // namespace optp

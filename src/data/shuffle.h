// A random order that is never written down.
#pragma once

#include <array>
#include <cstdint>

#include "parallel/random.h"

namespace optp {

/// A permutation of 0 .. size - 1 drawn from a key: any element in constant time and memory, the same on every machine.
///
/// A Feistel network, whose rounds are invertible whatever they mix in, permutes the numbers below a power of four;
/// those that land outside are sent through again until they land inside (Black and Rogaway, 2002).
class Shuffle {
 public:
  Shuffle(const RandomKey& key, int64_t size);

  /// The element at `index`, which must lie in 0 .. size - 1.
  int64_t operator[](int64_t index) const;

 private:
  static constexpr int kRounds = 8;

  int64_t size_;
  int half_bits_;
  std::array<uint32_t, kRounds> round_keys_{};
};

}  // namespace optp

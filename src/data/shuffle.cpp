#include "src/data/shuffle.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace optp {

// Halves of four bits at least: with fewer, few of all orders could come out.
Shuffle::Shuffle(const RandomKey& key, int64_t size)
    : size_(size), half_bits_(std::max(4, static_cast<int>(std::bit_width(static_cast<uint64_t>(size - 1)) + 1) / 2)) {
  draw_bits(key, 0, kRounds, round_keys_.data());
}

int64_t Shuffle::operator[](int64_t index) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (const uint32_t round_key : round_keys_) {
      uint64_t mixed = (right ^ (uint64_t{round_key} << 32 | round_key)) * 0x9E3779B97F4A7C15;
      mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93;
      left = std::exchange(right, left ^ (mixed >> (64 - half_bits_)));
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace optp

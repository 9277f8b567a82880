// A hash that tells whether data changed, as fast as memory is read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace optp {

/// XXH64 with seed 0 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): the same on every machine. It finds
/// accidents, not forgeries.
class Xxh64 {
 public:
  void update(std::string_view bytes);
  uint64_t digest() const;

 private:
  static constexpr size_t kStripe = 32;

  void consume(const char* stripe);

  static constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
  static constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
  std::array<uint64_t, 4> lanes_ = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
  std::array<char, kStripe> held_{};  // the beginning of a stripe
  uint64_t size_ = 0;
};

inline uint64_t xxh64(std::string_view bytes) {
  Xxh64 hash;
  hash.update(bytes);
  return hash.digest();
}

/// 16 hexadecimal digits.
std::string hex64(uint64_t value);

}  // namespace optp

#include "src/data/xxh64.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace optp {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie in memory");

constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

template <typename T>
uint64_t load_lane(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

}  // namespace

void Xxh64::consume(const char* stripe) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i] = std::rotl(lanes_[i] + load_lane<uint64_t>(stripe + 8 * i) * kPrime2, 31) * kPrime1;
  }
}

void Xxh64::update(std::string_view bytes) {
  const size_t held = size_ % kStripe;
  size_ += bytes.size();
  if (held > 0) {
    const size_t taken = std::min(kStripe - held, bytes.size());
    std::memcpy(held_.data() + held, bytes.data(), taken);
    bytes.remove_prefix(taken);
    if (held + taken < kStripe) return;
    consume(held_.data());
  }
  for (; bytes.size() >= kStripe; bytes.remove_prefix(kStripe)) consume(bytes.data());
  std::copy(bytes.begin(), bytes.end(), held_.begin());
}

uint64_t Xxh64::digest() const {
  uint64_t hash = kPrime5;
  if (size_ >= kStripe) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) {
      hash = (hash ^ std::rotl(lane * kPrime2, 31) * kPrime1) * kPrime1 + kPrime4;
    }
  }
  hash += size_;
  const char* next = held_.data();
  size_t left = size_ % kStripe;
  for (; left >= 8; next += 8, left -= 8) {
    hash ^= std::rotl(load_lane<uint64_t>(next) * kPrime2, 31) * kPrime1;
    hash = std::rotl(hash, 27) * kPrime1 + kPrime4;
  }
  if (left >= 4) {
    hash = std::rotl(hash ^ load_lane<uint32_t>(next) * kPrime1, 23) * kPrime2 + kPrime3;
    next += 4;
    left -= 4;
  }
  for (; left > 0; ++next, --left) hash = std::rotl(hash ^ load_lane<uint8_t>(next) * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

std::string hex64(uint64_t value) {
  std::string text(16, '0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
  return text;
}

}  // namespace optp

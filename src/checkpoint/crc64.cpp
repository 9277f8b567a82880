#include "src/checkpoint/crc64.h"

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstring>

#ifdef __x86_64__
#include <emmintrin.h>
#include <wmmintrin.h>
#endif

namespace optp {
namespace {

// x^64 + ... of ECMA-182 with the coefficients reversed: bit 63 is x^0.
constexpr uint64_t kPolynomial = 0xC96C5795D7870F42;
constexpr uint64_t kOne = uint64_t{1} << 63;

constexpr uint64_t times_x(uint64_t a) { return a >> 1 ^ ((a & 1) != 0 ? kPolynomial : 0); }

// Table k: what a byte adds to the register once k more bytes have passed.
constexpr auto kTables = [] {
  std::array<std::array<uint64_t, 256>, 8> tables{};
  for (uint64_t byte = 0; byte < 256; ++byte) {
    uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = times_x(value);
    tables[0][byte] = value;
  }
  for (size_t k = 1; k < tables.size(); ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint64_t value = tables[k - 1][byte];
      tables[k][byte] = value >> 8 ^ tables[0][value & 0xFF];
    }
  }
  return tables;
}();

// The register after `bytes`, eight at a time.
uint64_t update_by_tables(uint64_t state, std::string_view bytes) {
  const char* next = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; next += 8, left -= 8) {
    uint64_t word = 0;
    std::memcpy(&word, next, 8);
    word ^= state;
    state = 0;
    for (int i = 0; i < 8; ++i) state ^= kTables[7 - i][word >> 8 * i & 0xFF];
  }
  for (; left > 0; ++next, --left) state = state >> 8 ^ kTables[0][(state ^ static_cast<unsigned char>(*next)) & 0xFF];
  return state;
}

constexpr uint64_t multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  for (; a != 0; a <<= 1, b = times_x(b)) product ^= (a & kOne) != 0 ? b : 0;
  return product;
}

constexpr uint64_t power_of_x(uint64_t exponent) {
  uint64_t power = kOne;
  for (uint64_t square = times_x(kOne); exponent != 0; exponent >>= 1, square = multiply(square, square)) {
    if ((exponent & 1) != 0) power = multiply(power, square);
  }
  return power;
}

#ifdef __x86_64__
constexpr size_t kFolded = 64;  // bytes a step: four lanes keep the multiplier busy

// Moves 128 bits of the message forward by the distance whose powers of x `factors` holds, onto `data`. The powers are
// one too low, since the product of two reversed polynomials comes out one place short.
__attribute__((target("pclmul"))) __m128i fold(__m128i lane, __m128i factors, __m128i data) {
  const __m128i early = _mm_clmulepi64_si128(lane, factors, 0x00);
  const __m128i late = _mm_clmulepi64_si128(lane, factors, 0x11);
  return _mm_xor_si128(_mm_xor_si128(early, late), data);
}

// Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009. Whole steps
// only: `bytes` loses those that were folded into the 16 which come back and stand in front of the rest.
__attribute__((target("pclmul"))) std::array<char, 16> fold_all(uint64_t state, std::string_view& bytes) {
  constexpr auto factor = [](uint64_t bits) { return static_cast<int64_t>(power_of_x(bits - 1)); };
  constexpr int64_t kStepEarly = factor(8 * kFolded + 64);
  constexpr int64_t kStepLate = factor(8 * kFolded);
  constexpr int64_t kLaneEarly = factor(128 + 64);
  constexpr int64_t kLaneLate = factor(128);
  const auto load = [&](size_t lane) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes.data() + 16 * lane));
  };
  __m128i lanes[4] = {load(0), load(1), load(2), load(3)};
  lanes[0] = _mm_xor_si128(lanes[0], _mm_set_epi64x(0, static_cast<int64_t>(state)));
  const __m128i step = _mm_set_epi64x(kStepLate, kStepEarly);
  for (bytes.remove_prefix(kFolded); bytes.size() >= kFolded; bytes.remove_prefix(kFolded)) {
    for (size_t lane = 0; lane < 4; ++lane) lanes[lane] = fold(lanes[lane], step, load(lane));
  }
  const __m128i next = _mm_set_epi64x(kLaneLate, kLaneEarly);
  for (size_t lane = 1; lane < 4; ++lane) lanes[lane] = fold(lanes[lane - 1], next, lanes[lane]);
  std::array<char, 16> front{};
  std::memcpy(front.data(), &lanes[3], front.size());
  return front;
}
#endif

}  // namespace

uint64_t crc64(std::string_view bytes, uint64_t before) {
  uint64_t state = ~before;
#ifdef __x86_64__
  static const bool folds = __builtin_cpu_supports("pclmul") != 0;
  if (folds && bytes.size() >= 2 * kFolded) {
    const std::array<char, 16> front = fold_all(state, bytes);
    state = update_by_tables(0, {front.data(), front.size()});
  }
#endif
  return ~update_by_tables(state, bytes);
}

uint64_t combine_crc64(uint64_t first, uint64_t second, uint64_t second_size) {
  return multiply(first, power_of_x(8 * second_size)) ^ second;
}

std::string crc64_text(uint64_t checksum) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(checksum));
  return text;
}

}  // namespace optp

#include "parallel/philox.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>  // AVX2
#define OPTP_PHILOX_AVX2
#endif

namespace optp {
namespace {

constexpr uint32_t kMultiplierA = 0xD2511F53, kMultiplierC = 0xCD9E8D57;
constexpr uint32_t kKeyStepA = 0x9E3779B9, kKeyStepC = 0xBB67AE85;
constexpr int kRounds = 10;

#ifdef OPTP_PHILOX_AVX2
// Lane i of a[v], b[v], c[v], d[v] holds the words of block 4 v + i in its lower half. What is in the upper half does
// not matter: the multiplication reads lower halves, and nothing but it carries from one half to the other.
__attribute__((target("avx2"))) void philox_avx2(uint64_t key, uint64_t first_block, PhiloxNumbers& numbers) {
  constexpr int kVectors = 4;
  __m256i a[kVectors], b[kVectors], c[kVectors], d[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const auto counter = static_cast<int64_t>(first_block + 4 * v);
    a[v] = _mm256_add_epi64(_mm256_set1_epi64x(counter), _mm256_set_epi64x(3, 2, 1, 0));
    b[v] = _mm256_srli_epi64(a[v], 32);
    c[v] = d[v] = _mm256_setzero_si256();
  }
  const __m256i multiplier_a = _mm256_set1_epi64x(kMultiplierA), multiplier_c = _mm256_set1_epi64x(kMultiplierC);
  auto key_a = static_cast<uint32_t>(key), key_c = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const __m256i round_a = _mm256_set1_epi64x(key_a), round_c = _mm256_set1_epi64x(key_c);
    for (int v = 0; v < kVectors; ++v) {
      const __m256i x = _mm256_mul_epu32(multiplier_a, a[v]);
      const __m256i y = _mm256_mul_epu32(multiplier_c, c[v]);
      a[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(y, 32), b[v]), round_a);
      b[v] = y;
      c[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(x, 32), d[v]), round_c);
      d[v] = x;
    }
    key_a += kKeyStepA;
    key_c += kKeyStepC;
  }
  for (int v = 0; v < kVectors; ++v) {
    const __m256i ab = _mm256_blend_epi32(a[v], _mm256_slli_epi64(b[v], 32), 0xAA);  // a0 b0 a1 b1 | a2 b2 a3 b3
    const __m256i cd = _mm256_blend_epi32(c[v], _mm256_slli_epi64(d[v], 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(ab, cd);  // a0 b0 c0 d0 | a2 b2 c2 d2
    const __m256i odd = _mm256_unpackhi_epi64(ab, cd);   // a1 b1 c1 d1 | a3 b3 c3 d3
    auto* out = reinterpret_cast<__m256i*>(numbers.data() + 4 * kPhiloxLanes * v);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
}
#endif

}  // namespace

void philox_portable(uint64_t key, uint64_t first_block, PhiloxNumbers& numbers) {
  for (uint64_t block = 0; block < numbers.size() / kPhiloxLanes; ++block) {
    auto a = static_cast<uint32_t>(first_block + block), b = static_cast<uint32_t>((first_block + block) >> 32);
    uint32_t c = 0, d = 0;
    auto key_a = static_cast<uint32_t>(key), key_c = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t x = uint64_t{kMultiplierA} * a, y = uint64_t{kMultiplierC} * c;
      a = static_cast<uint32_t>(y >> 32) ^ b ^ key_a;
      b = static_cast<uint32_t>(y);
      c = static_cast<uint32_t>(x >> 32) ^ d ^ key_c;
      d = static_cast<uint32_t>(x);
      key_a += kKeyStepA;
      key_c += kKeyStepC;
    }
    uint32_t* out = numbers.data() + kPhiloxLanes * block;
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
  }
}

void philox(uint64_t key, uint64_t first_block, PhiloxNumbers& numbers) {
#ifdef OPTP_PHILOX_AVX2
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return philox_avx2(key, first_block, numbers);
#endif
  philox_portable(key, first_block, numbers);
}

}  // namespace optp

#include "parallel/few_rows_product.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace optp {

#if defined(__x86_64__)
namespace {

// Compiled for these instructions whatever the rest of the library is compiled for; the caller asks the CPU first.
#define OPTP_AVX2 __attribute__((target("avx2,fma")))
#define OPTP_AVX2_INLINE OPTP_AVX2 inline __attribute__((always_inline))

constexpr int64_t kLanes = 8;

OPTP_AVX2_INLINE __m256 load_lanes(const float* p) { return _mm256_loadu_ps(p); }
OPTP_AVX2_INLINE __m256 load_lanes(const at::BFloat16* p) {  // the upper half of a float
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
OPTP_AVX2_INLINE __m256 load_lanes(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

OPTP_AVX2_INLINE float sum_of_lanes(__m256 lanes) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// Weights come from memory, and a tile asks for those of the next one: the processor's own guess stops at the end of a
// row. They are asked into the second-level cache: a request into the first keeps one of its few slots for misses until
// it is served (measured on Zen 4: one row by bfloat16 weights takes 1.7 times as long).
constexpr int64_t kCacheLine = 64;  // bytes

template <typename Value>
OPTP_AVX2_INLINE void prefetch_line_at(const Value* p, int64_t k) {
  if (k * static_cast<int64_t>(sizeof(Value)) % kCacheLine == 0) {
    _mm_prefetch(reinterpret_cast<const char*>(p + k), _MM_HINT_T1);
  }
}

template <typename Value>
struct Operands {
  const float* input;   // [M, K]
  const Value* weight;  // [N, K]
  const float* scale;   // [N] or null
  const float* bias;    // [N] or null
  float* out;           // [M, N]
  int64_t rows, features, channels;
};

// Rows [row, row + M) times channels [channel, channel + N): M x N sums, which are in registers only if the loops over
// them are unrolled.
template <int M, int N, typename Value>
OPTP_AVX2_INLINE void tile(const Operands<Value>& all, int64_t row, int64_t channel) {
  const int64_t features = all.features;
  const float* input = all.input + row * features;
  const Value* weight = all.weight + channel * features;
  __m256 sums[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sums[m][n] = _mm256_setzero_ps();
  }
  int64_t k = 0;
  for (; k + kLanes <= features; k += kLanes) {
    if constexpr (M == 1) {
      const __m256 x = _mm256_loadu_ps(input + k);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        sums[0][n] = _mm256_fmadd_ps(x, load_lanes(weight + n * features + k), sums[0][n]);
        prefetch_line_at(weight + (n + N) * features, k);
      }
    } else {
      __m256 w[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        w[n] = load_lanes(weight + n * features + k);
        prefetch_line_at(weight + (n + N) * features, k);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const __m256 x = _mm256_loadu_ps(input + m * features + k);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[m][n] = _mm256_fmadd_ps(x, w[n], sums[m][n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      float sum = sum_of_lanes(sums[m][n]);
      for (int64_t rest = k; rest < features; ++rest) {
        sum += input[m * features + rest] * static_cast<float>(weight[n * features + rest]);
      }
      if (all.scale) sum *= all.scale[channel + n];
      if (all.bias) sum += all.bias[channel + n];
      all.out[(row + m) * all.channels + channel + n] = sum;
    }
  }
}

// All rows times N channels, which stay in the first-level cache meanwhile.
template <int N, typename Value>
OPTP_AVX2_INLINE void rows_of(const Operands<Value>& all, int64_t channel) {
  int64_t row = 0;
  for (; row + 4 <= all.rows; row += 4) tile<4, N>(all, row, channel);
  for (; row + 2 <= all.rows; row += 2) tile<2, N>(all, row, channel);
  for (; row < all.rows; ++row) tile<1, N>(all, row, channel);
}

template <typename Value>
OPTP_AVX2 void channels_of(const Operands<Value>& all, int64_t begin, int64_t end) {
  int64_t channel = begin;
  if (all.rows == 1) {
    for (; channel + 8 <= end; channel += 8) tile<1, 8>(all, 0, channel);
  }
  for (; channel + 3 <= end; channel += 3) rows_of<3>(all, channel);  // 4 x 3 sums, 3 weights, 1 input: 16 registers
  for (; channel < end; ++channel) rows_of<1>(all, channel);
}

template <typename Value>
void product_of(const at::Tensor& out, const at::Tensor& input, const StoredWeight& weight, const at::Tensor& bias) {
  const Operands<Value> all{input.const_data_ptr<float>(),
                            weight.values.const_data_ptr<Value>(),
                            weight.scale.defined() ? weight.scale.const_data_ptr<float>() : nullptr,
                            bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                            out.data_ptr<float>(),
                            input.size(0),
                            input.size(1),
                            weight.values.size(0)};
  constexpr int64_t kChannelBlock = 24;  // channels: a multiple of 8 and of 3
  constexpr int64_t kWorthAThread = 1 << 17;
  const int64_t blocks = (all.channels + kChannelBlock - 1) / kChannelBlock;
  const int64_t grain = 1 + kWorthAThread / std::max<int64_t>(1, kChannelBlock * all.features * all.rows);
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    channels_of(all, begin * kChannelBlock, std::min(end * kChannelBlock, all.channels));
  });
}

bool cpu_serves() {
  static const bool serves = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return serves;
}

bool is_row_major(const at::Tensor& matrix) { return matrix.dim() == 2 && matrix.is_contiguous(); }

}  // namespace

bool few_rows_product_serves(const at::Tensor& input, const StoredWeight& weight) {
  const at::ScalarType type = weight.values.scalar_type();
  return cpu_serves() && input.is_cpu() && input.scalar_type() == at::kFloat && is_row_major(input) &&
         input.size(0) <= kFewRows && is_row_major(weight.values) &&
         (type == at::kFloat || type == at::kBFloat16 || type == at::kChar);
}

void few_rows_product(const at::Tensor& out, const at::Tensor& input, const StoredWeight& weight,
                      const at::Tensor& bias) {
  RECORD_USER_SCOPE("product/few_rows_product");
  switch (weight.values.scalar_type()) {
    case at::kChar:
      return product_of<int8_t>(out, input, weight, bias);
    case at::kBFloat16:
      return product_of<at::BFloat16>(out, input, weight, bias);
    default:
      return product_of<float>(out, input, weight, bias);
  }
}

#else

bool few_rows_product_serves(const at::Tensor& /*input*/, const StoredWeight& /*weight*/) { return false; }

void few_rows_product(const at::Tensor& /*out*/, const at::Tensor& /*input*/, const StoredWeight& /*weight*/,
                      const at::Tensor& /*bias*/) {
  TORCH_CHECK(false, "few_rows_product does not serve this CPU.");
}

#endif

}  // namespace optp

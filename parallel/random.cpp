#include "parallel/random.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/PhiloxRNGEngine.h>

#include <array>
#include <cmath>
#include <numbers>

namespace optp {
namespace {

// splitmix64's finaliser: every bit of the result depends on every bit of x.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

constexpr int64_t kLanes = 4;  // numbers of one Philox block

// Calls `block(i, numbers)` for every Philox block that overlaps [first, first + count), i being its first number.
template <typename Block>
void for_blocks(const RandomKey& key, int64_t first, int64_t count, const Block& block) {
  const int64_t begin = first / kLanes;
  at::Philox4_32 engine(key.value(), /*subsequence=*/0, /*offset=*/static_cast<uint64_t>(begin));
  for (int64_t index = begin * kLanes; index < first + count; index += kLanes) {
    std::array<uint32_t, kLanes> numbers{engine(), engine(), engine(), engine()};
    block(index, numbers);
  }
}

// Copies the numbers of one block that lie in [first, first + count).
template <typename T>
void keep(const std::array<T, kLanes>& numbers, int64_t index, int64_t first, int64_t count, T* out) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const int64_t position = index + lane - first;
    if (position >= 0 && position < count) out[position] = numbers[lane];
  }
}

// Two N(0, 1) numbers from 64 random bits (Box and Muller, 1958).
void box_muller(uint32_t a, uint32_t b, float* out) {
  const float uniform = (static_cast<float>(a >> 8) + 1.0F) * 0x1p-24F;  // (0, 1]
  const float radius = std::sqrt(-2.0F * std::log(uniform));
  const float angle = static_cast<float>(b >> 8) * (0x1p-24F * 2.0F * std::numbers::pi_v<float>);
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

}  // namespace

RandomKey::RandomKey(uint64_t seed) : value_(mix(seed)) {}

RandomKey RandomKey::with(std::string_view name) const {
  RandomKey key = *this;
  // The length first, so that "ab" then "c" and "a" then "bc" are different streams.
  key.value_ = mix(key.value_ ^ name.size());
  for (const char c : name) key.value_ = mix(key.value_ ^ static_cast<unsigned char>(c));
  return key;
}

RandomKey RandomKey::with(int64_t index) const {
  RandomKey key = *this;
  key.value_ = mix(key.value_ + mix(static_cast<uint64_t>(index)));
  return key;
}

void draw_bits(const RandomKey& key, int64_t first, int64_t count, uint32_t* out) {
  for_blocks(key, first, count, [&](int64_t index, const auto& numbers) { keep(numbers, index, first, count, out); });
}

void draw_normal(const RandomKey& key, int64_t first, int64_t count, float* out) {
  for_blocks(key, first, count, [&](int64_t index, const auto& bits) {
    std::array<float, kLanes> numbers{};
    box_muller(bits[0], bits[1], &numbers[0]);
    box_muller(bits[2], bits[3], &numbers[2]);
    keep(numbers, index, first, count, out);
  });
}

void fill_normal(at::Tensor& local, const ParameterShard& shard, const RandomKey& key, double std) {
  TORCH_CHECK_VALUE(local.sizes() == shard.local_shape(), "a tensor of ", local.sizes(), " is not a shard of ",
                    at::IntArrayRef(shard.shape), ", which has ", at::IntArrayRef(shard.local_shape()), ".");
  at::NoGradGuard no_grad;
  // Seen as [outer, dim, inner] the local part is, for every outer index, one run of consecutive numbers of the whole.
  const int64_t dim = shard.dim.value_or(0);
  int64_t outer = 1;
  int64_t inner = 1;
  for (int64_t d = 0; d < static_cast<int64_t>(shard.shape.size()); ++d) (d < dim ? outer : inner) *= shard.shape[d];
  inner /= shard.shape.empty() ? 1 : shard.shape[dim];
  const Range range = shard.range();
  const int64_t whole_run = inner * (shard.shape.empty() ? 1 : shard.shape[dim]);
  const int64_t run = inner * range.size;

  const bool direct = local.scalar_type() == at::kFloat && local.is_contiguous();
  at::Tensor numbers = direct ? local.detach() : at::empty(local.sizes(), at::kFloat);
  float* out = numbers.data_ptr<float>();
  const auto fill = [&](int64_t row, int64_t from, int64_t to) {
    draw_normal(key, row * whole_run + range.start * inner + from, to - from, out + row * run + from);
  };
  constexpr int64_t kGrain = 1 << 14;
  if (outer == 1) {
    at::parallel_for(0, run, kGrain, [&](int64_t begin, int64_t end) { fill(0, begin, end); });
  } else {
    at::parallel_for(0, outer, kGrain / run + 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) fill(row, 0, run);
    });
  }
  numbers.mul_(std);
  if (!direct) local.detach().copy_(numbers);
}

}  // namespace optp

#include "parallel/random.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "parallel/philox.h"

namespace optp {
namespace {

// splitmix64's finaliser: every bit of the result depends on every bit of x.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Calls `use(numbers, skipped, taken, done)` for runs of the stream that cover [first, first + count): `taken` numbers
// from `skipped` on are numbers first + done, .. of the stream.
template <typename Use>
void for_numbers(const RandomKey& key, int64_t first, int64_t count, const Use& use) {
  PhiloxNumbers numbers;
  for (int64_t done = 0; done < count;) {
    const int64_t block = (first + done) / kPhiloxLanes;
    philox(key.value(), static_cast<uint64_t>(block), numbers);
    const int64_t skipped = first + done - block * kPhiloxLanes;
    const int64_t taken = std::min<int64_t>(numbers.size() - skipped, count - done);
    use(numbers, skipped, taken, done);
    done += taken;
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
  for_numbers(key, first, count, [&](const PhiloxNumbers& numbers, int64_t skipped, int64_t taken, int64_t done) {
    std::copy_n(numbers.begin() + skipped, taken, out + done);
  });
}

void draw_normal(const RandomKey& key, int64_t first, int64_t count, float* out) {
  for_numbers(key, first, count, [&](const PhiloxNumbers& bits, int64_t skipped, int64_t taken, int64_t done) {
    // Numbers come in pairs; a run may begin or end inside one.
    for (int64_t i = skipped / 2 * 2; i < skipped + taken; i += 2) {
      std::array<float, 2> pair{};
      box_muller(bits[i], bits[i + 1], pair.data());
      if (i >= skipped) out[done + i - skipped] = pair[0];
      if (i + 1 >= skipped && i + 1 < skipped + taken) out[done + i + 1 - skipped] = pair[1];
    }
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

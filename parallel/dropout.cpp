#include "parallel/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <functional>
#include <vector>

namespace optp {
namespace {

// input * mask, where row r of the mask (input seen as [rows, n]) is drawn from key_of(r).
at::Tensor masked(const at::Tensor& input, double p, int64_t rows, const std::function<RandomKey(int64_t)>& key_of) {
  TORCH_CHECK_VALUE(p >= 0 && p < 1, "a dropout probability of ", p, " is outside [0, 1); choose one inside.");
  const int64_t n = rows == 0 ? 0 : input.numel() / rows;
  at::Tensor mask = at::empty({rows, n}, at::kFloat);
  float* out = mask.data_ptr<float>();
  const auto dropped_below = static_cast<uint32_t>(std::lround(p * 0x1p24));
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> bits(n);
    for (int64_t row = begin; row < end; ++row) {
      draw_bits(key_of(row), 0, n, bits.data());
      for (int64_t i = 0; i < n; ++i) out[row * n + i] = (bits[i] >> 8) < dropped_below ? 0.0F : 1.0F;
    }
  });
  return input * mask.view(input.sizes()).to(input.scalar_type()).mul_(1.0 / (1.0 - p));
}

}  // namespace

at::Tensor keyed_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence) {
  if (p == 0) return input;
  return masked(input, p, input.size(0), [&](int64_t row) { return key.with(first_sequence + row); });
}

at::Tensor keyed_head_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence,
                              int64_t first_head) {
  if (p == 0) return input;
  const int64_t heads = input.size(1);
  return masked(input, p, input.size(0) * heads,
                [&](int64_t row) { return key.with(first_sequence + row / heads).with(first_head + row % heads); });
}

}  // namespace optp

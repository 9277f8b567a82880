#include "parallel/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "parallel/backward_node.h"

namespace optp {
namespace {

// Where the elements of a tensor draw: element i is number (first + i) % length of stream (first + i) / length.
struct Streams {
  int64_t length;
  int64_t first;
  std::function<RandomKey(int64_t)> key_of;
};

template <typename T>
void drop_run(const T* in, T* out, int64_t count, const RandomKey& key, int64_t first, double p) {
  using Wide = at::opmath_type<T>;
  const auto dropped_below = static_cast<int32_t>(std::lround(p * 0x1p24));
  const auto scale = static_cast<Wide>(1.0 / (1.0 - p));
  std::array<uint32_t, 1024> bits;
  for (int64_t done = 0; done < count; done += bits.size()) {
    const int64_t size = std::min<int64_t>(bits.size(), count - done);
    draw_bits(key, first + done, size, bits.data());
    for (int64_t i = 0; i < size; ++i) {
      const Wide kept = static_cast<Wide>(in[done + i]) * scale;
      out[done + i] = static_cast<T>(static_cast<int32_t>(bits[i] >> 8) < dropped_below ? Wide(0) : kept);
    }
  }
}

at::Tensor dropped(const at::Tensor& input, double p, const Streams& streams) {
  const at::Tensor source = input.contiguous();
  at::Tensor result = at::empty_like(source);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, source.scalar_type(), "keyed dropout", [&] {
    const auto* in = source.const_data_ptr<scalar_t>();
    auto* out = result.data_ptr<scalar_t>();
    at::parallel_for(0, source.numel(), /*grain_size=*/1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t stream = (streams.first + i) / streams.length;
        const int64_t place = (streams.first + i) % streams.length;
        const int64_t count = std::min(streams.length - place, end - i);
        drop_run(in + i, out + i, count, streams.key_of(stream), place, p);
        i += count;
      }
    });
  });
  return result;
}

at::Tensor stream_dropout(const at::Tensor& input, double p, Streams streams) {
  TORCH_CHECK_VALUE(p >= 0 && p < 1, "a dropout probability of ", p, " is outside [0, 1); choose one inside.");
  if (p == 0) return input;
  // Dropout is linear: the gradient passes through the same mask.
  at::Tensor output = dropped(input.detach(), p, streams);
  return with_backward(std::move(output), input, [p, streams = std::move(streams)](const at::Tensor& gradient) {
    return dropped(gradient, p, streams);
  });
}

// Elements for each of `count` equal parts; 1 for none.
int64_t part_length(const at::Tensor& input, int64_t count) {
  return std::max<int64_t>(1, count == 0 ? 0 : input.numel() / count);
}

}  // namespace

at::Tensor keyed_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence) {
  return stream_dropout(
      input, p, {part_length(input, input.size(0)), 0, [=](int64_t row) { return key.with(first_sequence + row); }});
}

at::Tensor keyed_head_dropout(const at::Tensor& input, double p, const RandomKey& key, int64_t first_sequence,
                              int64_t first_head) {
  const int64_t heads = input.size(1);
  return stream_dropout(input, p, {part_length(input, input.size(0) * heads), 0, [=](int64_t row) {
                                     return key.with(first_sequence + row / heads).with(first_head + row % heads);
                                   }});
}

at::Tensor keyed_token_dropout(const at::Tensor& input, double p, const RandomKey& key, const TokenRange& range) {
  const int64_t width = part_length(input, input.size(0));
  return stream_dropout(input, p, {range.tokens * width, range.start * width, [key, range](int64_t sequence) {
                                     return key.with(range.first_sequence + sequence);
                                   }});
}

}  // namespace optp

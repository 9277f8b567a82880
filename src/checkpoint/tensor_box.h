// Which part of a whole tensor something is, in every dimension: the form in which checkpoints say what they hold.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "parallel/parameter_shard.h"

namespace optp {

/// Indices [start[d], start[d] + size[d]) of each dimension d of a tensor of `shape`. All three are equally long.
struct TensorBox {
  std::vector<int64_t> shape;
  std::vector<int64_t> start;
  std::vector<int64_t> size;

  friend bool operator==(const TensorBox&, const TensorBox&) = default;
};

TensorBox box_of(const ParameterShard& shard);

/// Whether it lies within its shape, and the bytes of neither overflow, whatever the numbers in it.
bool is_sound(const TensorBox& box);

/// The part that both have of a tensor; nothing if they have none in common.
std::optional<TensorBox> intersection(const TensorBox& a, const TensorBox& b);

enum class Tiling { exact, overlap, gap };

/// Whether sound boxes of one shape cover it, each element once.
Tiling tiling(const std::vector<TensorBox>& boxes);

/// Copies what `stored` and `wanted` have in common. `bytes` hold `stored` in row-major order and little-endian
/// numbers of `dtype`, at any alignment; `out` is a contiguous CPU tensor of wanted.size. Floating-point numbers
/// convert to the dtype of `out`, others must have it. Touches no byte outside the common part and needs no memory to
/// speak of.
void copy_box(std::string_view bytes, at::ScalarType dtype, const TensorBox& stored, const TensorBox& wanted,
              const at::Tensor& out);

}  // namespace optp

#include "src/checkpoint/tensor_box.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

namespace optp {
namespace {

int64_t volume(const TensorBox& box) { return c10::multiply_integers(box.size); }

// Row-major strides of a contiguous tensor of `size`, in elements.
std::vector<int64_t> row_major_strides(const std::vector<int64_t>& size) {
  std::vector<int64_t> strides(size.size(), 1);
  for (size_t d = size.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(size[d], 1);
  return strides;
}

// `rows` equal runs of bytes, counted through the dimensions before `depth`.
struct Runs {
  size_t depth;   // dimensions [depth, n) are one run
  int64_t bytes;  // of a run
};

// The longest run that is without gaps on both sides.
Runs longest_runs(const std::vector<int64_t>& size, const std::vector<int64_t>& from, const std::vector<int64_t>& to,
                  int64_t element) {
  Runs runs{size.size(), element};
  int64_t elements = 1;
  while (runs.depth > 0 && from[runs.depth - 1] == elements && to[runs.depth - 1] == elements) {
    elements *= size[--runs.depth];
  }
  runs.bytes = elements * element;
  return runs;
}

void copy_runs(const char* from, const std::vector<int64_t>& from_strides, const at::Tensor& out) {
  const std::vector<int64_t> size = out.sizes().vec();
  const std::vector<int64_t> to_strides = out.strides().vec();
  const int64_t element = out.element_size();
  const Runs runs = longest_runs(size, from_strides, to_strides, element);
  char* to = static_cast<char*>(out.mutable_data_ptr());
  std::vector<int64_t> index(runs.depth, 0);
  while (true) {
    int64_t from_offset = 0;
    int64_t to_offset = 0;
    for (size_t d = 0; d < runs.depth; ++d) {
      from_offset += index[d] * from_strides[d];
      to_offset += index[d] * to_strides[d];
    }
    const char* source = from + from_offset * element;
    if (out.scalar_type() == at::kBool) {
      // A bool is 0 or 1 to C++, a byte in a file can be anything.
      std::transform(source, source + runs.bytes, to + to_offset, [](char byte) { return byte != 0 ? 1 : 0; });
    } else {
      std::memcpy(to + to_offset * element, source, runs.bytes);
    }
    size_t d = runs.depth;
    while (d > 0 && ++index[d - 1] == size[d - 1]) index[--d] = 0;
    if (d == 0) return;
  }
}

// Through a small tensor of the stored dtype, which stays in the cache. `out` is cut along its first dimension, or,
// where one index of that is already large, along the next ones.
void convert_runs(const char* from, at::ScalarType dtype, const std::vector<int64_t>& from_strides,
                  const at::Tensor& out) {
  constexpr int64_t kStaged = 1 << 14;
  if (out.dim() > 1 && out.numel() / out.size(0) > kStaged) {
    const std::vector<int64_t> inner(from_strides.begin() + 1, from_strides.end());
    const int64_t stride = from_strides[0] * static_cast<int64_t>(c10::elementSize(dtype));
    for (int64_t i = 0; i < out.size(0); ++i) convert_runs(from + i * stride, dtype, inner, out[i]);
    return;
  }
  if (out.dim() == 0) {
    const at::Tensor staged = at::empty({}, out.options().dtype(dtype));
    copy_runs(from, from_strides, staged);
    out.copy_(staged);
    return;
  }
  const int64_t rows = std::max<int64_t>(1, kStaged / (out.numel() / out.size(0)));
  std::vector<int64_t> size = out.sizes().vec();
  for (int64_t row = 0; row < out.size(0); row += rows) {
    size[0] = std::min(rows, out.size(0) - row);
    const at::Tensor staged = at::empty(size, out.options().dtype(dtype));
    copy_runs(from + row * from_strides[0] * static_cast<int64_t>(c10::elementSize(dtype)), from_strides, staged);
    out.narrow(0, row, size[0]).copy_(staged);
  }
}

}  // namespace

TensorBox box_of(const ParameterShard& shard) {
  TensorBox box{shard.shape, std::vector<int64_t>(shard.shape.size(), 0), shard.local_shape()};
  if (shard.dim) box.start[*shard.dim] = shard.range().start;
  return box;
}

bool is_sound(const TensorBox& box) {
  if (box.start.size() != box.shape.size() || box.size.size() != box.shape.size()) return false;
  int64_t bytes = 16;  // the largest element
  for (size_t d = 0; d < box.shape.size(); ++d) {
    if (box.shape[d] < 0 || box.start[d] < 0 || box.size[d] < 0 || box.start[d] > box.shape[d] ||
        box.size[d] > box.shape[d] - box.start[d] ||
        __builtin_mul_overflow(bytes, std::max<int64_t>(box.shape[d], 1), &bytes)) {
      return false;
    }
  }
  return true;
}

std::optional<TensorBox> intersection(const TensorBox& a, const TensorBox& b) {
  TensorBox common{a.shape, a.start, a.size};
  for (size_t d = 0; d < a.shape.size(); ++d) {
    common.start[d] = std::max(a.start[d], b.start[d]);
    common.size[d] = std::min(a.start[d] + a.size[d], b.start[d] + b.size[d]) - common.start[d];
    if (common.size[d] <= 0) return std::nullopt;
  }
  return common;
}

Tiling tiling(const std::vector<TensorBox>& boxes) {
  int64_t missing = boxes.empty() ? 1 : c10::multiply_integers(boxes.front().shape);
  for (size_t i = 0; i < boxes.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (intersection(boxes[i], boxes[j])) return Tiling::overlap;
    }
    missing -= volume(boxes[i]);
  }
  return missing == 0 ? Tiling::exact : Tiling::gap;
}

void copy_box(std::string_view bytes, at::ScalarType dtype, const TensorBox& stored, const TensorBox& wanted,
              const at::Tensor& out) {
  TORCH_CHECK_VALUE(out.sizes() == wanted.size && out.is_contiguous() && out.is_cpu(), "a tensor of shape ",
                    out.sizes(), " cannot take a part of shape ", at::IntArrayRef(wanted.size),
                    ": pass a contiguous CPU tensor of that shape.");
  const bool converts = dtype != out.scalar_type();
  TORCH_CHECK_VALUE(!converts || (at::isFloatingType(dtype) && at::isFloatingType(out.scalar_type())), dtype,
                    " does not convert to ", out.scalar_type(), ".");
  const std::optional<TensorBox> common = intersection(stored, wanted);
  if (!common) return;
  const std::vector<int64_t> strides = row_major_strides(stored.size);
  int64_t first = 0;
  at::Tensor part = out.detach();
  for (size_t d = 0; d < common->size.size(); ++d) {
    first += (common->start[d] - stored.start[d]) * strides[d];
    part = part.narrow(static_cast<int64_t>(d), common->start[d] - wanted.start[d], common->size[d]);
  }
  const char* from = bytes.data() + first * static_cast<int64_t>(c10::elementSize(dtype));
  at::NoGradGuard no_grad;
  if (converts) {
    convert_runs(from, dtype, strides, part);
  } else {
    copy_runs(from, strides, part);
  }
}

}  // namespace optp

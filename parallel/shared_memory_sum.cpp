#include "parallel/shared_memory_sum.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

namespace optp {
namespace {

using Op = c10d::ReduceOp::RedOpType;

template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(value);
  return false;
}

struct Sum {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Maximum {
  template <typename T>
  T operator()(T a, T b) const {
    return a > b || is_nan(a) ? a : b;  // a NaN on either side wins
  }
};
struct Minimum {
  template <typename T>
  T operator()(T a, T b) const {
    return a < b || is_nan(a) ? a : b;
  }
};

// A block of sums stays in the first-level cache while the sources pass by.
template <typename T, typename Combine>
void reduce(std::byte* out, const std::vector<const std::byte*>& sources, int64_t count, const Combine& combine) {
  constexpr bool kSmall = std::is_same_v<T, c10::BFloat16> || std::is_same_v<T, c10::Half>;
  using Wide = std::conditional_t<kSmall, float, T>;
  constexpr int64_t kBlock = 1024;
  std::array<Wide, kBlock> sums;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = std::min(kBlock, count - begin);
    const T* first = reinterpret_cast<const T*>(sources[0]) + begin;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) sums[i] = static_cast<Wide>(first[i]);
    for (size_t s = 1; s < sources.size(); ++s) {
      const T* next = reinterpret_cast<const T*>(sources[s]) + begin;
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) sums[i] = combine(sums[i], static_cast<Wide>(next[i]));
    }
    T* result = reinterpret_cast<T*>(out) + begin;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) result[i] = static_cast<T>(sums[i]);
  }
}

template <typename T>
void reduce(std::byte* out, const std::vector<const std::byte*>& sources, int64_t count, Op op) {
  switch (op) {
    case Op::MAX:
      return reduce<T>(out, sources, count, Maximum());
    case Op::MIN:
      return reduce<T>(out, sources, count, Minimum());
    default:
      return reduce<T>(out, sources, count, Sum());
  }
}

}  // namespace

bool can_reduce(c10::ScalarType type, Op op) {
  switch (type) {
    case c10::ScalarType::Float:
    case c10::ScalarType::Double:
    case c10::ScalarType::BFloat16:
    case c10::ScalarType::Half:
    case c10::ScalarType::Int:
    case c10::ScalarType::Long:
      return op == Op::SUM || op == Op::MAX || op == Op::MIN;
    default:
      return false;
  }
}

void reduce_sources(std::byte* out, const std::vector<const std::byte*>& sources, int64_t count, c10::ScalarType type,
                    Op op) {
  switch (type) {
    case c10::ScalarType::Float:
      return reduce<float>(out, sources, count, op);
    case c10::ScalarType::Double:
      return reduce<double>(out, sources, count, op);
    case c10::ScalarType::BFloat16:
      return reduce<c10::BFloat16>(out, sources, count, op);
    case c10::ScalarType::Half:
      return reduce<c10::Half>(out, sources, count, op);
    case c10::ScalarType::Int:
      return reduce<int32_t>(out, sources, count, op);
    case c10::ScalarType::Long:
      return reduce<int64_t>(out, sources, count, op);
    default:
      TORCH_CHECK(false, "no reduction of ", type);
  }
}

}  // namespace optp

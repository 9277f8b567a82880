#include "parallel/square_sum.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace optp {
namespace {

// Blocks of this many elements are summed by one thread each, whatever the number of threads.
constexpr int64_t kBlock = int64_t{1} << 15;

template <typename T>
double block_square_sum(const T* values, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return sum;
}

}  // namespace

double square_sum(const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "square_sum needs a contiguous tensor; this one has strides ",
                    tensor.strides(), ".");
  const int64_t size = tensor.numel();
  const int64_t blocks = (size + kBlock - 1) / kBlock;
  std::vector<double> sums(blocks);
  AT_DISPATCH_FLOATING_TYPES(tensor.scalar_type(), "square_sum", [&] {
    const scalar_t* values = tensor.const_data_ptr<scalar_t>();
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t start = block * kBlock;
        sums[block] = block_square_sum(values + start, std::min(kBlock, size - start));
      }
    });
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace optp

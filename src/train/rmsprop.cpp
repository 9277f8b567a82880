#include "src/train/rmsprop.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace optp {
namespace {

// Fewer elements than this are not worth another thread.
constexpr int64_t kRmspropGrain = int64_t{1} << 14;

template <bool kCentered, bool kMomentum, typename T>
void update_range(int64_t begin, int64_t end, T* parameter, const T* gradient, T* square_avg, T* grad_avg, T* buffer,
                  const RmspropStep& step) {
  const T lr = static_cast<T>(step.lr);
  const T alpha = static_cast<T>(step.alpha);
  const T rest = static_cast<T>(1 - step.alpha);
  const T eps = static_cast<T>(step.eps);
  const T decay = static_cast<T>(step.weight_decay);
  const T momentum = static_cast<T>(step.momentum);
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const T g = gradient[i] + decay * parameter[i];
    const T square = square_avg[i] = alpha * square_avg[i] + rest * g * g;
    T variance = square;
    if constexpr (kCentered) {
      const T mean = grad_avg[i] = grad_avg[i] + rest * (g - grad_avg[i]);
      variance = square - mean * mean;
      variance = variance < 0 ? T(0) : variance;
    }
    T d = g / (std::sqrt(variance) + eps);
    if constexpr (kMomentum) d = buffer[i] = momentum * buffer[i] + d;
    parameter[i] -= lr * d;
  }
}

}  // namespace

void rmsprop_step_(const at::Tensor& parameter, const at::Tensor& gradient, const at::Tensor& square_avg,
                   const at::Tensor& grad_avg, const at::Tensor& momentum_buffer, const RmspropStep& step) {
  AT_DISPATCH_FLOATING_TYPES(parameter.scalar_type(), "rmsprop_step_", [&] {
    auto* p = parameter.mutable_data_ptr<scalar_t>();
    const auto* g = gradient.const_data_ptr<scalar_t>();
    auto* square = square_avg.mutable_data_ptr<scalar_t>();
    auto* mean = grad_avg.defined() ? grad_avg.mutable_data_ptr<scalar_t>() : nullptr;
    auto* buffer = momentum_buffer.defined() ? momentum_buffer.mutable_data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, parameter.numel(), kRmspropGrain, [&](int64_t begin, int64_t end) {
      const auto run = [&](auto centered, auto with_momentum) {
        update_range<decltype(centered)::value, decltype(with_momentum)::value>(begin, end, p, g, square, mean, buffer,
                                                                                step);
      };
      if (mean && buffer) return run(std::true_type(), std::true_type());
      if (mean) return run(std::true_type(), std::false_type());
      if (buffer) return run(std::false_type(), std::true_type());
      run(std::false_type(), std::false_type());
    });
  });
  // Writing through pointers goes unnoticed by autograd, which must know that a saved parameter is stale.
  parameter.unsafeGetTensorImpl()->bump_version();
}

}  // namespace optp

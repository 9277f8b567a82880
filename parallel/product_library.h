// The library that forms the products of large float32 matrices.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace optp {

/// mkl: LibTorch's own choice for float32. onednn: the other one that LibTorch carries.
enum class ProductLibrary { mkl, onednn };

/// oneDNN on AMD processors with AVX-512, whose units MKL leaves idle (measured: 1.05 to 1.15 times as fast at OPT's
/// shapes, on Zen 4), MKL on all others (measured on Zen 3: 1.2 to 1.8 times as fast as oneDNN). A rule in place of a
/// measurement at the start: a run that is repeated or goes on after a restart must add in the same order.
ProductLibrary preferred_product_library();

/// Sets this process's library, which is mkl until then. All ranks need the same one, or replicated numbers drift
/// apart. Call it before other threads work.
void set_product_library(ProductLibrary library);

/// Calls `callback` once, at the next product that the library is asked for: a program that fails on its input before
/// has nothing to say about products.
void on_first_product(std::function<void()> callback);
void note_product();

/// Whether oneDNN is asked for and can form input [..., K] times weight [N, K] transposed: float32 on the CPU.
bool onednn_product_serves(const at::Tensor& input, const at::Tensor& weight);

/// input [..., K] times weight [N, K] transposed, plus bias [N] if it is defined -> [..., N]. The operands may have any
/// strides. Nothing that autograd follows.
at::Tensor onednn_product(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace optp

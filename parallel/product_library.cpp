#include "parallel/product_library.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <atomic>
#include <optional>
#include <string_view>
#include <utility>

namespace optp {
namespace {

std::atomic<ProductLibrary> g_library = ProductLibrary::mkl;
std::atomic<bool> g_expects_product = false;
std::function<void()> g_on_first_product;

}  // namespace

ProductLibrary preferred_product_library() {
#if defined(__x86_64__)
  const bool idle_units_in_mkl = __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f");
  if (idle_units_in_mkl && at::hasMKLDNN()) return ProductLibrary::onednn;
#endif
  return ProductLibrary::mkl;
}

void set_product_library(ProductLibrary library) { g_library = library; }

void on_first_product(std::function<void()> callback) {
  g_on_first_product = std::move(callback);
  g_expects_product = true;
}

void note_product() {
  if (g_expects_product && g_expects_product.exchange(false)) g_on_first_product();
}

bool onednn_product_serves(const at::Tensor& input, const at::Tensor& weight) {
  return g_library == ProductLibrary::onednn && input.is_cpu() && input.scalar_type() == at::kFloat &&
         weight.scalar_type() == at::kFloat && input.numel() > 0 && weight.numel() > 0;
}

at::Tensor onednn_product(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  // What torch.compile calls; it has no C++ header of its own.
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                               c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto linear =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Signature>();
  const c10::impl::ExcludeDispatchKeyGuard below_autograd(c10::autograd_dispatch_keyset);
  const std::optional<at::Tensor> added = bias.defined() ? std::optional(bias) : std::nullopt;
  return linear.call(input, weight, added, "none", c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace optp

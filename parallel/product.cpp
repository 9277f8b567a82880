#include "parallel/product.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "parallel/backward_node.h"
#include "parallel/few_rows_product.h"
#include "parallel/product_library.h"

namespace optp {
namespace {

// out [M, N] = input [M, K] times a narrower weight, which is widened for a few output channels at a time.
void widened_product_out(const at::Tensor& out, const at::Tensor& input, const StoredWeight& weight) {
  constexpr int64_t kWide = 1 << 18;  // 1 MiB of float32
  const int64_t channels = weight.values.size(0), features = weight.values.size(1);
  const int64_t block = std::clamp<int64_t>(kWide / std::max<int64_t>(1, features), 1, std::max<int64_t>(1, channels));
  const at::Tensor wide = at::empty({block, features}, input.options());
  for (int64_t first = 0; first < channels; first += block) {
    const int64_t count = std::min(block, channels - first);
    at::Tensor part = out.narrow(1, first, count);
    at::mm_out(part, input, weight.widened(first, count, wide).t());
  }
}

// In a type of its own, or for a few rows: input [M, K].
at::Tensor product_without_gradient(const at::Tensor& input, const StoredWeight& weight, const at::Tensor& bias) {
  TORCH_CHECK_VALUE(input.scalar_type() == at::kFloat, "weights in ", weight.values.scalar_type(),
                    " meet activations in ", input.scalar_type(), "; compute in float32.");
  TORCH_CHECK_VALUE(!at::GradMode::is_enabled() || !input.requires_grad(), "weights in ", weight.values.scalar_type(),
                    " have no gradient; train with float32 weights.");
  at::Tensor out = at::empty({input.size(0), weight.values.size(0)}, input.options().requires_grad(false));
  if (few_rows_product_serves(input, weight)) {
    few_rows_product(out, input, weight, bias);
    return out;
  }
  widened_product_out(out, input, weight);
  return bias.defined() ? out.add_(bias) : out;
}

// at::linear by oneDNN. Its gradient of the weight stays with MKL, which is as fast there.
at::Tensor onednn_linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  std::vector<at::Tensor> output{onednn_product(input, weight, bias)};
  if (!at::GradMode::is_enabled()) return output[0];
  const bool flows_to[] = {input.requires_grad(), weight.requires_grad(), bias.defined() && bias.requires_grad()};
  set_backward(output, {input, weight, bias},
               [input = flows_to[1] ? input.detach() : at::Tensor(), weight = weight.detach(),
                input_flows = flows_to[0], bias_flows = flows_to[2]](const std::vector<at::Tensor>& gradients) {
                 std::vector<at::Tensor> results(3);
                 const at::Tensor& gradient = gradients[0];
                 if (input_flows) results[0] = onednn_product(gradient, weight.t());
                 const at::Tensor rows = gradient.reshape({-1, gradient.size(-1)});
                 if (input.defined()) {
                   results[1] = product_weight_gradient(rows, input.reshape({-1, input.size(-1)}));
                 }
                 if (bias_flows) results[2] = rows.sum(0);
                 return results;
               });
  return output[0];
}

// A weight in the input's type.
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  note_product();
  return onednn_product_serves(input, weight) ? onednn_linear(input, weight, bias) : at::linear(input, weight, bias);
}

}  // namespace

at::Tensor product(const at::Tensor& input, const StoredWeight& weight, const at::Tensor& bias) {
  const bool narrow = weight.narrower_than(input.scalar_type());
  if (!narrow && !c10::InferenceMode::is_enabled()) return linear(input, weight.values, bias);
  const at::Tensor rows = (input.dim() == 2 ? input : input.reshape({-1, input.size(-1)})).contiguous();
  if (!narrow && !few_rows_product_serves(rows, weight)) return linear(input, weight.values, bias);
  at::Tensor out = product_without_gradient(rows, weight, bias);
  if (input.dim() == 2) return out;
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = out.size(1);
  return out.view(shape);
}

void product_out(at::Tensor out, const at::Tensor& input, const StoredWeight& weight) {
  if (!weight.narrower_than(input.scalar_type())) {
    at::mm_out(out, input, weight.values.t());
  } else if (few_rows_product_serves(input, weight) && out.is_contiguous()) {
    few_rows_product(out, input, weight, {});
  } else {
    widened_product_out(out, input, weight);
  }
}

void product_input_gradient_out(at::Tensor out, const at::Tensor& gradient, const at::Tensor& weight) {
  at::mm_out(out, gradient, weight);
}

at::Tensor product_weight_gradient(const at::Tensor& gradient, const at::Tensor& input) {
  return gradient.t().mm(input);
}

void add_product_weight_gradient_(const at::Tensor& sum, const at::Tensor& gradient, const at::Tensor& input) {
  if (sum.scalar_type() == gradient.scalar_type()) {
    sum.addmm_(gradient.t(), input);
  } else {
    sum.add_(product_weight_gradient(gradient, input));
  }
}

}  // namespace optp

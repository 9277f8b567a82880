#include "parallel/product.h"

#include <ATen/ATen.h>

namespace optp {

at::Tensor product(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(input, weight, bias);
}

void product_out(at::Tensor out, const at::Tensor& input, const at::Tensor& weight) {
  at::mm_out(out, input, weight.t());
}

void product_input_gradient_out(at::Tensor out, const at::Tensor& gradient, const at::Tensor& weight) {
  at::mm_out(out, gradient, weight);
}

at::Tensor product_weight_gradient(const at::Tensor& gradient, const at::Tensor& input) {
  return gradient.t().mm(input);
}

void add_product_weight_gradient_(at::Tensor sum, const at::Tensor& gradient, const at::Tensor& input) {
  if (sum.scalar_type() == gradient.scalar_type()) {
    sum.addmm_(gradient.t(), input);
  } else {
    sum.add_(product_weight_gradient(gradient, input));
  }
}

}  // namespace optp

// Products by either library, on integers: every right program gives the very same numbers.
#include "parallel/product.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "parallel/product_library.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::integers;
using testing::same;

class Product : public ::testing::TestWithParam<ProductLibrary> {
 protected:
  void SetUp() override { set_product_library(GetParam()); }
  void TearDown() override { set_product_library(ProductLibrary::mkl); }
};

INSTANTIATE_TEST_SUITE_P(Library, Product, ::testing::Values(ProductLibrary::mkl, ProductLibrary::onednn),
                         [](const auto& one) { return one.param == ProductLibrary::mkl ? "mkl" : "onednn"; });

// float64 always goes to the same library, and is the measure.
TEST_P(Product, AndItsGradientsAreExact) {
  for (const std::vector<int64_t>& rows : {std::vector<int64_t>{37}, {5, 7}, {1}, {64}}) {
    for (const bool biased : {false, true}) {
      std::vector<std::vector<at::Tensor>> found;
      for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
        std::vector<int64_t> shape = rows;
        shape.push_back(19);
        const at::Tensor input = integers(shape, 1, type).requires_grad_();
        const at::Tensor weight = integers({23, 19}, 2, type).requires_grad_();
        const at::Tensor bias = biased ? integers({23}, 3, type).requires_grad_() : at::Tensor();
        const at::Tensor output = product(input, weight, bias);
        output.backward(integers(output.sizes(), 4, type));
        found.push_back({output.detach(), input.grad(), weight.grad()});
        if (biased) found.back().push_back(bias.grad());
      }
      for (size_t i = 0; i < found[0].size(); ++i) EXPECT_TRUE(same(found[0][i].to(at::kDouble), found[1][i])) << i;
    }
  }
}

TEST_P(Product, FollowsOnlyWhatIsTrained) {
  const at::Tensor frozen = integers({23, 19}, 2, at::kFloat);
  const at::Tensor input = integers({40, 19}, 1, at::kFloat).requires_grad_();
  product(input, frozen).sum().backward();
  EXPECT_TRUE(same(input.grad(), frozen.sum(0).expand({40, 19}).contiguous()));
  const at::Tensor weight = integers({23, 19}, 2, at::kFloat).requires_grad_();
  product(input.detach(), weight).sum().backward();
  EXPECT_TRUE(same(weight.grad(), input.detach().sum(0).expand({23, 19}).contiguous()));
  EXPECT_FALSE(product(input.detach(), frozen).requires_grad());
}

TEST_P(Product, OfATransposedOperand) {
  const at::Tensor input = integers({19, 40}, 1, at::kFloat).t();
  const at::Tensor weight = integers({19, 23}, 2, at::kFloat).t();
  EXPECT_TRUE(same(product(input, weight), input.contiguous().matmul(weight.t().contiguous())));
}

TEST(ProductLibrary, OneDnnIsUsedWhenAskedFor) {
  const at::Tensor input = at::ones({40, 8}), weight = at::ones({4, 8});
  EXPECT_FALSE(onednn_product_serves(input, weight));
  set_product_library(ProductLibrary::onednn);
  EXPECT_TRUE(onednn_product_serves(input, weight));
  EXPECT_FALSE(onednn_product_serves(input.to(at::kDouble), weight.to(at::kDouble)));
  set_product_library(ProductLibrary::mkl);
}

}  // namespace
}  // namespace optp

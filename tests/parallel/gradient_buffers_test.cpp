// The buffers that gradients are kept in, and the norm of what is in them, on one rank.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "parallel/gradients.h"
#include "tests/support/errors.h"
#include "tests/support/network.h"

namespace optp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::network_ids;
using testing::same;
using testing::WholeNetwork;

TEST(GradientBuffers, TakeNoMemoryForFrozenParameters) {
  const auto network = std::make_shared<WholeNetwork>();
  const int64_t all = Gradients(named_shards(*network), Mesh()).bytes();
  network->embed->weight.set_requires_grad(false);
  network->norm->bias.set_requires_grad(false);
  Gradients gradients(named_shards(*network), Mesh());
  EXPECT_LE(gradients.bytes(), all - 8 * (11 * 6 + 6));
  std::vector<std::string> names;
  for (const TrainedParameter& entry : gradients.parameters()) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "norm.weight"));
  network->before_norm(network_ids()).sum().backward();
  EXPECT_GT(gradients.finish().norm, 0);
  EXPECT_FALSE(network->embed->weight.grad().defined());
}

TEST(GradientBuffers, RefuseAModelWithNothingToTrainOrWhatCannotBeTrained) {
  const auto network = std::make_shared<WholeNetwork>();
  for (const at::Tensor& parameter : network->parameters()) parameter.set_requires_grad(false);
  EXPECT_EQ(message_of<c10::ValueError>([&] { Gradients(named_shards(*network), Mesh()); }),
            "none of the model's 7 parameters requires a gradient, so there is nothing to train; freeze fewer.");
  const at::Tensor transposed = integers({3, 2}).t().requires_grad_();
  EXPECT_THAT(message_of<c10::ValueError>([&] { Gradients({{"w", transposed, {.shape = {2, 3}}}}, Mesh()); }),
              HasSubstr("parameter w cannot be trained: it is Double with strides [1, 2]"));
}

TEST(GradientBuffers, HoldATensorThatComesUnderTwoNamesOnce) {
  const at::Tensor tied = integers({3}).requires_grad_();
  Gradients gradients({{"embed", tied, {.shape = {3}}}, {"head", tied, {.shape = {3}}}}, Mesh());
  ASSERT_EQ(gradients.parameters().size(), 1U);
  (tied * tied).sum().backward();
  EXPECT_DOUBLE_EQ(gradients.finish().norm, 2 * tied.detach().norm().item<double>());
}

// 512 gradients of 1 + 1/128: bfloat16 sums stop growing at 256.
TEST(GradientBuffers, AddBfloat16GradientsInFloat32) {
  const at::Tensor weight = at::ones({5}, at::kBFloat16).requires_grad_();
  Gradients gradients({{"w", weight, {.shape = {5}}}}, Mesh());
  for (int step = 0; step < 2; ++step) {
    gradients.start_step();
    for (int micro_batch = 0; micro_batch < 512; ++micro_batch) (weight * 1.0078125).sum().backward();
    gradients.finish();
    EXPECT_FALSE(weight.grad().defined());
    EXPECT_TRUE(same(gradients.parameters()[0].gradient, at::full({5}, 516, at::kFloat)));
  }
}

TEST(GradientBuffers, LeaveTheModelAsItWasWhenTheyAreGone) {
  const at::Tensor weight = integers({3}).requires_grad_();
  {
    Gradients gradients({{"w", weight, {.shape = {3}}}}, Mesh());
    (weight * 2).sum().backward();
  }
  EXPECT_FALSE(weight.grad().defined());
  (weight * 2).sum().backward();
  EXPECT_TRUE(same(weight.grad(), at::full({3}, 2, at::kDouble)));
}

TEST(GradientNorm, NeitherOverflowsNorRoundsInFloat32) {
  const int64_t count = 100003;
  const at::Tensor weight = at::ones({count}, at::kFloat).requires_grad_();
  Gradients gradients({{"w", weight, {.shape = {count}}}}, Mesh());
  const at::Tensor factor = at::linspace(-1, 1, count, at::kFloat);
  for (const double scale : {1e-30, 1.0, 1e30}) {
    gradients.start_step();
    (weight * (factor * scale)).sum().backward();
    const double expected = (factor * scale).to(at::kDouble).norm().item<double>();
    // Blocks of 2^15 squares are added one after the other in float64, whose rounding is 2^-53: at most 4e-12 in all.
    // Sums in float32 would be off by 1e-7 and overflow.
    EXPECT_NEAR(gradients.finish().norm / expected, 1, 4e-12);
  }
}

}  // namespace
}  // namespace optp

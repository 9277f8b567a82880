// fill_normal: every degree gets its part of the same parameter, bit for bit.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "parallel/random.h"
#include "tests/support/errors.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::same;

const RandomKey kKey = RandomKey(6).with("init").with("fc1.weight");

// The whole parameter straight from the stream: element i in row-major order is number i.
at::Tensor whole_parameter(at::IntArrayRef shape, double std) {
  at::Tensor whole = at::empty(shape, at::kFloat);
  draw_normal(kKey, 0, whole.numel(), whole.data_ptr<float>());
  return whole.mul_(std);
}

TEST(FillNormal, EveryShardIsThatPartOfTheWhole) {
  struct Case {
    std::vector<int64_t> shape;
    std::optional<int64_t> dim;
  };
  // Odd sizes, so that ranges start inside a block of four; the large ones are cut up between threads.
  const std::vector<Case> cases = {{{13, 7}, 0},    {{13, 7}, 1},     {{5, 9, 3}, 1},   {{5, 3, 9}, 2},
                                   {{11}, 0},       {{13, 7}, {}},    {{11}, {}},       {{}, {}},
                                   {{301, 211}, 0}, {{301, 211}, 1},  {{301, 211}, {}}, {{3, 70001}, 1},
                                   {{70001, 4}, 1}, {{2, 300, 61}, 1}};
  for (const auto& [shape, dim] : cases) {
    const at::Tensor whole = whole_parameter(shape, 0.02);
    for (int64_t tp = 1; tp <= 4; ++tp) {
      for (int64_t part = 0; part < tp; ++part) {
        const ShardLayout layout = dim ? ShardLayout(shape[*dim], tp) : ShardLayout();
        const ParameterShard shard{shape, dim, layout, dim ? part : 0};
        const at::Tensor expected = shard.slice(whole);
        for (const int threads : {3, 1}) {
          at::set_num_threads(threads);
          at::Tensor local = at::full(shard.local_shape(), 9.0F);
          fill_normal(local, shard, kKey, 0.02);
          EXPECT_TRUE(local.equal(expected)) << at::IntArrayRef(shape) << " part " << part << " of " << tp;
        }
      }
    }
  }
}

TEST(FillNormal, BlocksStayTogether) {
  const ParameterShard shard{{12, 5}, 0, {12, 3, 4}, 1};
  at::Tensor local = at::empty({4, 5});
  fill_normal(local, shard, kKey, 1);
  EXPECT_TRUE(same(local, whole_parameter({12, 5}, 1).narrow(0, 4, 4)));
}

TEST(FillNormal, OtherTypesGetTheSameNumbersRounded) {
  const ParameterShard shard{{13, 7}, 1, {7, 3}, 1};
  const at::Tensor expected = shard.slice(whole_parameter({13, 7}, 0.02));
  for (const at::ScalarType type : {at::kDouble, at::kBFloat16, at::kHalf}) {
    at::Tensor local = at::empty(shard.local_shape(), type);
    fill_normal(local, shard, kKey, 0.02);
    EXPECT_TRUE(same(local, expected.to(type)));
  }
}

TEST(FillNormal, TakesParametersAndViews) {
  const ParameterShard shard{{13, 7}, {}, {}, 0};
  const at::Tensor expected = whole_parameter({13, 7}, 1);
  at::Tensor parameter = at::zeros({13, 7}).requires_grad_();
  fill_normal(parameter, shard, kKey, 1);
  EXPECT_TRUE(same(parameter.detach(), expected));
  EXPECT_TRUE(parameter.is_leaf() && parameter.requires_grad());
  at::Tensor transposed = at::zeros({7, 13}).t();
  fill_normal(transposed, shard, kKey, 1);
  EXPECT_TRUE(same(transposed, expected));
}

TEST(FillNormal, StandardDeviationZeroGivesZeros) {
  at::Tensor local = at::full({13, 7}, 9.0F);
  fill_normal(local, {{13, 7}, {}, {}, 0}, kKey, 0);
  EXPECT_EQ(local.abs().max().item<float>(), 0);
}

TEST(FillNormal, ALocalTensorOfAnotherShapeIsRefused) {
  at::Tensor local = at::zeros({4, 7});
  EXPECT_THAT(message_of<c10::ValueError>([&] { fill_normal(local, {{13, 7}, 0, {13, 3}, 0}, kKey, 1); }),
              HasSubstr("[4, 7]"));
}

}  // namespace
}  // namespace optp

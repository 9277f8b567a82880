// checkpoint_activations: the same bits as without it, and what it does not keep.
#include "parallel/activation_checkpoint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "parallel/dropout.h"
#include "parallel/mappings.h"
#include "tests/support/allocations.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::allocations_of;
using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::run_ranks;
using testing::same;

// Two layers of dropout(relu(x w)) + x, whose gradients rounding would tell apart.
struct TwoLayers {
  explicit TwoLayers(bool checkpoint, bool input_wanted = true, bool weights_wanted = true)
      : input(integers({6, 8}).mul(0.37).requires_grad_(input_wanted)) {
    for (int64_t i = 0; i < 2; ++i) weights.push_back(integers({8, 8}, i).mul(0.11).requires_grad_(weights_wanted));
    at::Tensor x = input;
    for (int64_t i = 0; i < 2; ++i) {
      const auto layer = [w = weights[i], i, runs = &runs](const at::Tensor& hidden) {
        ++*runs;
        return keyed_dropout(hidden.matmul(w).relu(), 0.2, RandomKey(3).with(i), 0) + hidden;
      };
      x = checkpoint ? checkpoint_activations(layer, x, {weights[i]}) : layer(x);
    }
    output = x;
  }

  int runs = 0;
  at::Tensor input;
  std::vector<at::Tensor> weights;
  at::Tensor output;
};

TEST(ActivationCheckpoint, GradientsHaveTheSameBits) {
  TwoLayers plain(false), checkpointed(true);
  EXPECT_TRUE(same(checkpointed.output.detach(), plain.output.detach()));
  for (TwoLayers* model : {&plain, &checkpointed}) model->output.backward(integers({6, 8}, 5).mul(0.7));
  EXPECT_TRUE(same(checkpointed.input.grad(), plain.input.grad()));
  for (int64_t i = 0; i < 2; ++i) EXPECT_TRUE(same(checkpointed.weights[i].grad(), plain.weights[i].grad()));
  EXPECT_EQ(plain.runs, 2);
  EXPECT_EQ(checkpointed.runs, 4);
}

TEST(ActivationCheckpoint, WhatNeedsNoGradientGetsNone) {
  TwoLayers expected(false);
  expected.output.backward(integers({6, 8}, 5));
  TwoLayers weights_alone(true, /*input_wanted=*/false);
  weights_alone.output.backward(integers({6, 8}, 5));
  EXPECT_FALSE(weights_alone.input.grad().defined());
  EXPECT_TRUE(same(weights_alone.weights[0].grad(), expected.weights[0].grad()));
  TwoLayers input_alone(true, /*input_wanted=*/true, /*weights_wanted=*/false);
  input_alone.output.backward(integers({6, 8}, 5));
  EXPECT_TRUE(same(input_alone.input.grad(), expected.input.grad()));
  TwoLayers nothing(true, false, false);
  EXPECT_FALSE(nothing.output.requires_grad());
  EXPECT_EQ(nothing.runs, 2);
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(TwoLayers(true).output.requires_grad());
}

TEST(ActivationCheckpoint, GradientsAddUpAndHooksRunOnce) {
  TwoLayers expected(false), model(true);
  int calls = 0;
  model.weights[0].register_hook([&](const at::Tensor& gradient) {
    ++calls;
    return gradient * 2;
  });
  for (int pass = 0; pass < 2; ++pass) {
    expected.output.backward(integers({6, 8}, 5), /*retain_graph=*/true);
    model.output.backward(integers({6, 8}, 5), /*retain_graph=*/pass == 0);
  }
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(same(model.weights[0].grad(), expected.weights[0].grad() * 2));
  EXPECT_TRUE(same(model.weights[1].grad(), expected.weights[1].grad()));
  EXPECT_TRUE(same(model.input.grad(), expected.input.grad()));
  EXPECT_THAT(message_of([&] { model.output.sum().backward(); }), HasSubstr("a second time"));
}

TEST(ActivationCheckpoint, MisuseIsAnError) {
  TwoLayers model(true);
  EXPECT_THAT(message_of([&] { torch::autograd::grad({model.output.sum()}, {model.weights[0], model.input}); }),
              HasSubstr("call backward() in place of autograd::grad()"));
  TwoLayers changed(true);
  {
    const at::NoGradGuard no_grad;
    changed.input.add_(1);
  }
  EXPECT_THAT(message_of([&] { changed.output.sum().backward(); }), HasSubstr("modified by an inplace operation"));
}

TEST(ActivationCheckpoint, NothingButTheInputIsKept) {
  const at::Tensor input = at::randn({64, 32}).requires_grad_();
  const auto body = [](const at::Tensor& x) {
    return (x.repeat({1, 50}).exp().sin().cos() * x.repeat({1, 50})).sum(1);
  };
  const int64_t kept = allocations_of([&] {
                         static at::Tensor output;
                         output = checkpoint_activations(body, input, {});
                       }).left;
  const int64_t plain = allocations_of([&] {
                          static at::Tensor output;
                          output = body(input);
                        }).left;
  EXPECT_LE(kept, 64 * 4 + 64);  // the output
  EXPECT_GT(plain, 4 * 64 * 32 * 50 * 4);
}

// A column-parallel and a row-parallel layer: their collectives run again inside backward, in the same order on all
// ranks.
class CheckpointedRanks : public ::testing::TestWithParam<int64_t> {};

INSTANTIATE_TEST_SUITE_P(Tp, CheckpointedRanks, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(CheckpointedRanks, CollectivesRunAgainAndGradientsHaveTheSameBits) {
  run_ranks(GetParam(), [&](const Mesh& mesh) {
    const ProcessGroup& group = mesh.tensor();
    std::vector<at::Tensor> gradients;
    for (const bool checkpoint : {false, true}) {
      const at::Tensor input = integers({4, 6}).mul(0.3).requires_grad_();
      std::vector<at::Tensor> weights;
      ProcessGroup counted = group;
      counted.reset_counts();
      at::Tensor x = input;
      for (int i = 0; i < 3; ++i) {
        weights.push_back(integers({6, 6}, group.rank() + 5 * i).mul(0.1).requires_grad_());
        const auto layer = [&group, weight = weights.back()](const at::Tensor& hidden) {
          const at::Tensor inner = copy_to(hidden, group, "layer backward").matmul(weight).relu();
          return reduce_from_(inner.matmul(weight), group, "layer forward");
        };
        x = checkpoint ? checkpoint_activations(layer, x, {weights.back()}) : layer(x);
      }
      x.backward(integers({4, 6}, 5));
      gradients.push_back(input.grad());
      for (const at::Tensor& weight : weights) gradients.push_back(weight.grad());
      if (group.size() > 1) {
        EXPECT_EQ(counted.counts().at("layer forward").calls, checkpoint ? 6 : 3);
        EXPECT_EQ(counted.counts().at("layer backward").calls, 3);
      }
    }
    for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(same(gradients[4 + i], gradients[i])) << i;
  });
}

// An error inside the second run reaches the caller as what it is.
TEST(ActivationCheckpoint, ErrorsInTheSecondRunKeepTheirType) {
  const at::Tensor input = integers({2}).requires_grad_();
  int runs = 0;
  const auto body = [&](const at::Tensor& x) {
    TORCH_CHECK_WITH(DistBackendError, ++runs < 2, "a peer is gone");
    return x * 2;
  };
  const at::Tensor output = checkpoint_activations(body, input, {});
  EXPECT_EQ(message_of<c10::DistBackendError>([&] { output.sum().backward(); }), "a peer is gone");
}

}  // namespace
}  // namespace optp

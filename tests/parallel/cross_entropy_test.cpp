// vocab_parallel_cross_entropy against at::cross_entropy_loss on the whole logits.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "parallel/vocab_parallel_cross_entropy.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::close;
using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::run_ranks;
using testing::same;

// Losses [N] and the gradient [N, V] of their sum weighted by `weights`.
struct LossAndGradient {
  at::Tensor loss, gradient;
};

LossAndGradient whole_loss(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights) {
  const at::Tensor leaf = logits.detach().clone().requires_grad_();
  const at::Tensor loss = at::cross_entropy_loss(leaf, labels, {}, at::Reduction::None, /*ignore_index=*/-100);
  loss.backward(weights);
  return {loss.detach(), leaf.grad()};
}

// The same from the logits of this rank; the gradient is that of its range.
LossAndGradient sharded_loss(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights,
                             const ProcessGroup& group) {
  const ShardLayout layout(logits.size(1), group.size());
  const Range range = layout.range(group.rank());
  const at::Tensor leaf = logits.detach().narrow(1, range.start, range.size).clone().requires_grad_();
  const at::Tensor loss = vocab_parallel_cross_entropy(leaf, labels, layout, group);
  loss.backward(weights.to(loss.scalar_type()));
  return {loss.detach(), leaf.grad()};
}

at::Tensor own_range(const at::Tensor& whole, const ProcessGroup& group) {
  const Range range = ShardLayout(whole.size(1), group.size()).range(group.rank());
  return whole.narrow(1, range.start, range.size);
}

class CrossEntropy : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
  const int64_t rows = 26;
  const at::Tensor weights = integers({rows}, 4);  // of the rows' losses, both signs

  // Labels that visit every word of 24 or 23, the last rank's too.
  at::Tensor every_label(int64_t words) const { return at::arange(rows, at::kLong).remainder(words); }

  // Compares at this degree; returns on all ranks' evidence.
  void compare(const at::Tensor& logits, const at::Tensor& labels, double tolerance) const {
    const auto expected = whole_loss(logits, labels, weights.to(logits.scalar_type()));
    run_ranks(tp, [&](const Mesh& mesh) {
      const auto actual = sharded_loss(logits, labels, weights, mesh.tensor());
      EXPECT_EQ(actual.loss.scalar_type(), logits.scalar_type());
      EXPECT_TRUE(close(actual.loss, expected.loss, tolerance));
      EXPECT_TRUE(close(actual.gradient, own_range(expected.gradient, mesh.tensor()), tolerance));
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Tp, CrossEntropy, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(CrossEntropy, EqualsOneProcessInFloat64AndFloat32) {
  for (const int64_t words : {24, 23}) {
    const at::Tensor logits = integers({rows, words}).mul(0.7);
    compare(logits, every_label(words), 1e-14);
    compare(logits.to(at::kFloat), every_label(words), 5e-6);
  }
}

TEST_P(CrossEntropy, IgnoredRowsHaveNoLossAndNoGradient) {
  const at::Tensor logits = integers({rows, 23}).mul(0.7);
  at::Tensor labels = every_label(23);
  labels.slice(0, 1, rows, 3).fill_(-100);
  compare(logits, labels, 1e-14);
  labels.fill_(-100);
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto actual = sharded_loss(logits, labels, weights, mesh.tensor());
    EXPECT_TRUE(same(actual.loss, at::zeros({rows}, at::kDouble)));
    EXPECT_EQ(actual.gradient.abs().max().item<double>(), 0);
  });
}

TEST_P(CrossEntropy, TheIgnoredIndexMayBeAWord) {
  const at::Tensor logits = integers({rows, 23}).mul(0.7);
  const at::Tensor labels = every_label(23);
  const at::Tensor expected = at::cross_entropy_loss(logits, labels, {}, at::Reduction::None, /*ignore_index=*/1);
  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor loss = vocab_parallel_cross_entropy(own_range(logits, mesh.tensor()), labels, {23, tp},
                                                         mesh.tensor(), /*ignore_index=*/1);
    EXPECT_TRUE(close(loss, expected, 1e-14));
    EXPECT_EQ(loss[1].item<double>(), 0);
  });
}

TEST_P(CrossEntropy, LargeLogitsDoNotOverflow) {
  for (const double shift : {1e4, -1e4}) {
    const at::Tensor logits = integers({rows, 23}).add(shift);
    compare(logits, every_label(23), 1e-11);                // 1e4 has 12 digits left
    compare(logits.to(at::kFloat), every_label(23), 5e-6);  // integers of this size are exact
  }
  // Far apart: nearly all exponentials vanish, and the largest logit is on one rank alone.
  compare(integers({rows, 23}).mul(2e3), every_label(23), 1e-11);
}

TEST_P(CrossEntropy, WordsThatCannotOccurMayBeMinusInfinity) {
  at::Tensor logits = integers({rows, 23}).mul(0.7);
  const Range last = ShardLayout(23, 4).range(3);  // all that the last of 4 ranks owns
  logits.narrow(1, last.start, last.size).fill_(-std::numeric_limits<double>::infinity());
  compare(logits, every_label(last.start), 1e-14);
}

TEST_P(CrossEntropy, BFloat16LogitsAreSummedInFloat32) {
  const at::Tensor logits = integers({rows, 23}).mul(0.7).to(at::kBFloat16);
  const at::Tensor labels = every_label(23);
  const auto expected = whole_loss(logits.to(at::kFloat), labels, weights.to(at::kFloat));
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto actual = sharded_loss(logits, labels, weights, mesh.tensor());
    EXPECT_EQ(actual.loss.scalar_type(), at::kFloat);
    EXPECT_TRUE(close(actual.loss, expected.loss, 5e-6));
    EXPECT_EQ(actual.gradient.scalar_type(), at::kBFloat16);
    // Rounded once: half a unit in the last of 8 bits.
    const at::Tensor gradient = own_range(expected.gradient, mesh.tensor());
    EXPECT_TRUE(at::allclose(actual.gradient.to(at::kFloat), gradient, /*rtol=*/1.001 / 256, /*atol=*/1e-6));
  });
}

TEST_P(CrossEntropy, ExchangesThreeNumbersARow) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      ProcessGroup group = mesh.tensor();
      group.reset_counts();
      const at::Tensor logits = own_range(integers({rows, 1000}, 0, type), group).clone().requires_grad_();
      const at::Tensor loss =
          vocab_parallel_cross_entropy(logits, at::zeros({rows}, at::kLong), {1000, tp}, group, -100, "loss");
      loss.sum().backward();
      if (tp == 1) {
        EXPECT_TRUE(group.counts().empty());
        continue;
      }
      EXPECT_EQ(group.counts().size(), 1U);
      EXPECT_EQ(group.counts().at("loss").calls, 2);
      EXPECT_EQ(group.counts().at("loss").bytes, 3 * rows * static_cast<int64_t>(c10::elementSize(type)));
    }
  });
}

TEST_P(CrossEntropy, LogitsAndLabelsAreNotChanged) {
  const at::Tensor logits = integers({rows, 23});
  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor own = own_range(logits, mesh.tensor()).clone().requires_grad_();
    const at::Tensor labels = every_label(23);
    vocab_parallel_cross_entropy(own, labels, {23, tp}, mesh.tensor()).sum().backward();
    EXPECT_TRUE(same(own.detach(), own_range(logits, mesh.tensor())));
    EXPECT_TRUE(same(labels, every_label(23)));
  });
}

TEST_P(CrossEntropy, BadInputIsRefusedOnEveryRank) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardLayout layout(23, tp);
    const int64_t own = layout.range(mesh.tensor().rank()).size;
    const at::Tensor logits = at::zeros({2, own});
    const auto label_error = [&](int64_t label) {
      return message_of<c10::IndexError>(
          [&] { vocab_parallel_cross_entropy(logits, at::tensor({int64_t{3}, label}), layout, mesh.tensor()); });
    };
    EXPECT_EQ(label_error(23),
              "label 23 is outside the vocabulary of 23; use ids from 0 to 22, or -100 to leave a "
              "position out.");
    EXPECT_THAT(label_error(-1), HasSubstr("label -1 is outside the vocabulary of 23"));
    EXPECT_EQ(label_error(22), "no error");

    const auto shape_error = [&](at::IntArrayRef logits_shape, at::IntArrayRef labels_shape) {
      return message_of<c10::ValueError>([&] {
        vocab_parallel_cross_entropy(at::zeros(logits_shape), at::zeros(labels_shape, at::kLong), layout, mesh.tensor(),
                                     -100, "loss");
      });
    };
    EXPECT_EQ(shape_error({2, own + 1}, {2}),
              c10::str("loss: logits are [2, ", own + 1, "] and this rank owns ", own, " words; pass [N, ", own, "]."));
    EXPECT_THAT(shape_error({1, 2, own}, {2}), HasSubstr("loss: logits are [1, 2, "));
    EXPECT_EQ(shape_error({2, own}, {3}), "loss: [3] labels for 2 rows of logits; pass one label a row.");
    EXPECT_THAT(shape_error({2, own}, {2, 1}), HasSubstr("loss: [2, 1] labels"));
  });
}

}  // namespace
}  // namespace optp

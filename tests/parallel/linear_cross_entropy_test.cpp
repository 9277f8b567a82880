// vocab_parallel_linear_cross_entropy against at::cross_entropy_loss of the whole logits, and against calculus.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "parallel/mappings.h"
#include "parallel/vocab_parallel_linear_cross_entropy.h"
#include "tests/support/allocations.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::allocations_of;
using testing::close;
using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::run_ranks;
using testing::same;

constexpr int64_t kRows = 26;
constexpr int64_t kWidth = 5;

// A head of `words` words, and what it is asked.
struct Problem {
  explicit Problem(int64_t words, at::ScalarType type = at::kDouble)
      : hidden(integers({kRows, kWidth}, 3).mul(0.37).to(type)),
        weight(integers({words, kWidth}, 1).mul(0.21).to(type)),
        labels(at::arange(kRows, at::kLong).remainder(words)) {}

  at::Tensor hidden, weight, labels;
};

struct LossAndGradients {
  at::Tensor loss, hidden, weight;
};

// In one process, by LibTorch, of `scale` times the loss.
LossAndGradients whole_loss(const Problem& problem, double scale) {
  const at::Tensor hidden = problem.hidden.clone().requires_grad_();
  const at::Tensor weight = problem.weight.clone().requires_grad_();
  const at::Tensor loss = at::cross_entropy_loss(hidden.matmul(weight.t()), problem.labels, {}, at::Reduction::Sum);
  (loss * scale).backward();
  return {loss.detach(), hidden.grad(), weight.grad()};
}

at::Tensor own_words(const at::Tensor& whole, const ProcessGroup& group) {
  const Range range = ShardLayout(whole.size(0), group.size()).range(group.rank());
  return whole.narrow(0, range.start, range.size);
}

// The loss of this rank, with its leaves.
struct ShardedLoss {
  ShardedLoss(const Problem& problem, const ProcessGroup& group, int64_t chunk)
      : hidden(problem.hidden.clone().requires_grad_()),
        weight(own_words(problem.weight, group).clone().requires_grad_()),
        loss(vocab_parallel_linear_cross_entropy(copy_to(hidden, group, "copy"), weight, problem.labels,
                                                 {problem.weight.size(0), group.size()}, group, -100, "loss", chunk)) {}

  at::Tensor hidden, weight, loss;
};

class LinearCrossEntropy : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();

  void compare(const Problem& problem, int64_t chunk, double scale, double tolerance) const {
    const LossAndGradients expected = whole_loss(problem, scale);
    run_ranks(tp, [&](const Mesh& mesh) {
      const ShardedLoss actual(problem, mesh.tensor(), chunk);
      EXPECT_EQ(actual.loss.dim(), 0);
      EXPECT_EQ(actual.loss.scalar_type(), problem.hidden.scalar_type());
      (actual.loss * scale).backward();
      EXPECT_TRUE(close(actual.loss.detach(), expected.loss, tolerance * kRows));
      EXPECT_TRUE(close(actual.hidden.grad(), expected.hidden, tolerance));
      EXPECT_TRUE(close(actual.weight.grad(), own_words(expected.weight, mesh.tensor()), tolerance));
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Tp, LinearCrossEntropy, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(LinearCrossEntropy, EqualsOneProcessForAnyChunk) {
  for (const int64_t words : {24, 23}) {
    for (const int64_t chunk : {1, 4, 13, 26, 100}) compare(Problem(words), chunk, 1, 1e-13);
    compare(Problem(words, at::kFloat), 4, 1, 1e-5);
  }
}

TEST_P(LinearCrossEntropy, TheIncomingGradientScalesBoth) {
  for (const double scale : {-3.7, 0.01, 0.0}) compare(Problem(23), 7, scale, 1e-13);
}

TEST_P(LinearCrossEntropy, IgnoredRowsHaveNoLossAndNoGradient) {
  Problem problem(23);
  problem.labels.slice(0, 1, kRows, 3).fill_(-100);
  problem.labels.slice(0, 8, 16).fill_(-100);  // whole chunks
  compare(problem, 4, 1, 1e-13);
  problem.labels.fill_(-100);
  compare(problem, 4, 1, 0);
}

TEST_P(LinearCrossEntropy, LargeLogitsDoNotOverflow) {
  Problem problem(23);
  problem.hidden.mul_(1e3);  // logits up to some thousands, most exponentials vanish
  // Logits of 4e3 have an error of 4e-13, which a gradient shows multiplied by hidden, up to 2e3.
  compare(problem, 4, 1, 1e-9);
}

// Central differences: d/dx f = (f(x + h) - f(x - h)) / 2h + O(h^2).
TEST_P(LinearCrossEntropy, GradientsAreThoseOfCalculus) {
  const Problem problem(11);
  constexpr double kStep = 1e-5;
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardedLoss actual(problem, mesh.tensor(), 7);
    actual.loss.backward();
    const at::NoGradGuard no_grad;
    const auto loss_at = [&](const at::Tensor& whole, int64_t element, double step) {
      Problem moved(11);
      at::Tensor& target = whole.is_same(problem.hidden) ? moved.hidden : moved.weight;
      target.view(-1)[element].add_(step);
      return ShardedLoss(moved, mesh.tensor(), 7).loss.item<double>();
    };
    const auto difference = [&](const at::Tensor& whole) {
      at::Tensor slope = at::empty(whole.numel(), at::kDouble);
      for (int64_t i = 0; i < whole.numel(); ++i) {
        slope[i] = (loss_at(whole, i, kStep) - loss_at(whole, i, -kStep)) / (2 * kStep);
      }
      return slope.view(whole.sizes());
    };
    EXPECT_TRUE(close(actual.hidden.grad(), difference(problem.hidden), 1e-7));
    EXPECT_TRUE(close(actual.weight.grad(), own_words(difference(problem.weight), mesh.tensor()), 1e-7));
  });
}

TEST_P(LinearCrossEntropy, OnlyWhatNeedsAGradientGetsOne) {
  const Problem problem(23);
  const LossAndGradients expected = whole_loss(problem, 1);
  run_ranks(tp, [&](const Mesh& mesh) {
    const ProcessGroup& group = mesh.tensor();
    const auto loss_of = [&](const at::Tensor& hidden, const at::Tensor& weight) {
      return vocab_parallel_linear_cross_entropy(hidden, weight, problem.labels, {23, tp}, group, -100, "loss", 4);
    };
    const at::Tensor weight = own_words(problem.weight, group).clone();
    EXPECT_FALSE(loss_of(problem.hidden, weight).requires_grad());
    const at::Tensor trained = weight.clone().requires_grad_();
    loss_of(problem.hidden, trained).backward();
    EXPECT_TRUE(close(trained.grad(), own_words(expected.weight, group), 1e-13));
    const at::Tensor hidden = problem.hidden.clone().requires_grad_();
    loss_of(copy_to(hidden, group, "copy"), weight).backward();
    EXPECT_TRUE(close(hidden.grad(), expected.hidden, 1e-13));
    const at::NoGradGuard no_grad;
    const at::Tensor loss = loss_of(hidden, trained);
    EXPECT_FALSE(loss.grad_fn());
    EXPECT_TRUE(close(loss, expected.loss, 1e-12));
  });
}

TEST_P(LinearCrossEntropy, BackwardTwiceNeedsARetainedGraph) {
  const Problem problem(23);
  const LossAndGradients expected = whole_loss(problem, 1);
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardedLoss actual(problem, mesh.tensor(), 4);
    (actual.loss * 2).backward({}, /*retain_graph=*/true);
    actual.loss.backward();
    EXPECT_TRUE(close(actual.hidden.grad(), expected.hidden * 3, 1e-12));
    EXPECT_TRUE(close(actual.weight.grad(), own_words(expected.weight, mesh.tensor()) * 3, 1e-12));
    EXPECT_THAT(message_of([&] { actual.loss.backward(); }), HasSubstr("backward through the graph a second time"));
  });
}

TEST_P(LinearCrossEntropy, BFloat16IsSummedInFloat32) {
  Problem problem(23, at::kBFloat16);
  Problem exact(23);
  exact.hidden = problem.hidden.to(at::kDouble);
  exact.weight = problem.weight.to(at::kDouble);
  const LossAndGradients expected = whole_loss(exact, 0.5);
  constexpr double kEpsilon = 1.0 / 256;  // half a unit in the last of 8 bits
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardedLoss actual(problem, mesh.tensor(), 4);
    EXPECT_EQ(actual.loss.scalar_type(), at::kFloat);
    (actual.loss * 0.5).backward();
    EXPECT_EQ(actual.weight.grad().scalar_type(), at::kBFloat16);
    // Logits up to 6 are rounded, which moves each loss by as much at most.
    EXPECT_TRUE(close(actual.loss.detach(), expected.loss, kRows * 6 * kEpsilon));
    // Every addend of a gradient is rounded, and moves with the rounded logits; the sum over the chunks is not.
    const auto largest = [](const at::Tensor& t) { return t.abs().max().item<double>(); };
    EXPECT_TRUE(close(actual.hidden.grad(), expected.hidden, 12 * kEpsilon * largest(expected.hidden)));
    EXPECT_TRUE(close(actual.weight.grad(), own_words(expected.weight, mesh.tensor()),
                      12 * kEpsilon * largest(expected.weight)));
  });
}

TEST_P(LinearCrossEntropy, ExchangesThreeNumbersARowInACallForEachChunk) {
  const Problem problem(23);
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardedLoss actual(problem, mesh.tensor(), 4);
    ProcessGroup group = mesh.tensor();
    if (tp == 1) {
      EXPECT_TRUE(group.counts().empty());
      return;
    }
    EXPECT_EQ(group.counts().at("loss").calls, 7);
    EXPECT_EQ(group.counts().at("loss").bytes, 3 * kRows * 8);
    group.reset_counts();
    actual.loss.backward();
    EXPECT_EQ(group.counts().count("loss"), 0U);
  });
}

TEST(LinearCrossEntropyMemory, TheLogitsOfTheBatchNeverExist) {
  const int64_t rows = 512, words = 1000, width = 4, chunk = 16;
  const at::Tensor hidden = at::randn({rows, width}).requires_grad_();
  const at::Tensor weight = at::randn({words, width}).requires_grad_();
  const at::Tensor labels = at::zeros({rows}, at::kLong);
  const auto memory = allocations_of([&] {
    vocab_parallel_linear_cross_entropy(hidden, weight, labels, {words, 1}, {}, -100, "loss", chunk).backward();
  });
  const int64_t logits = rows * words * 4;
  EXPECT_LT(memory.peak, logits / 8);
  EXPECT_GE(memory.peak, chunk * words * 4);
}

TEST(LinearCrossEntropyErrors, BadInputIsRefused) {
  const auto error = [&](const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels) {
    return message_of<c10::Error>(
        [&] { vocab_parallel_linear_cross_entropy(hidden, weight, labels, {23, 1}, {}, -100, "loss"); });
  };
  const at::Tensor hidden = at::zeros({2, 5}), weight = at::zeros({23, 5}), labels = at::zeros({2}, at::kLong);
  EXPECT_EQ(error(hidden, weight, labels), "no error");
  EXPECT_THAT(error(hidden, weight, labels + 23), HasSubstr("label 23 is outside the vocabulary of 23"));
  EXPECT_THAT(error(hidden, weight.narrow(0, 0, 22), labels), HasSubstr("weight has 22 rows and this rank owns 23"));
  EXPECT_THAT(error(hidden, at::zeros({23, 4}), labels), HasSubstr("hidden is Float [2, 5] and weight Float [23, 4]"));
  EXPECT_THAT(error(hidden, weight.to(at::kDouble), labels), HasSubstr("of one type"));
  EXPECT_THAT(error(hidden, weight, at::zeros({3}, at::kLong)), HasSubstr("[3] labels for 2 rows"));
}

}  // namespace
}  // namespace optp

// Keyed dropout: the right share, the right scale, and masks that depend on global indices alone.
#include "parallel/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tests/support/allocations.h"
#include "tests/support/errors.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::allocations_of;
using testing::close;
using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::same;

const RandomKey kDropoutKey = RandomKey(8).with("dropout").with(17);

TEST(KeyedDropout, ZeroesTheShareThatWasAskedFor) {
  const at::Tensor ones = at::ones({64, 128, 128});
  const auto n = static_cast<double>(ones.numel());
  for (const double p : {0.1, 0.5, 0.9}) {
    const at::Tensor output = keyed_dropout(ones, p, kDropoutKey, 0);
    const double zeros = output.eq(0).sum().item<double>() / n;
    EXPECT_NEAR(zeros, p, 5 * std::sqrt(p * (1 - p) / n));
    // Every sequence has its share, and nothing else than 0 and 1 / (1 - p) occurs.
    EXPECT_TRUE(close(output.eq(0).to(at::kDouble).mean(at::IntArrayRef{1, 2}), at::full({64}, p),
                      5 * std::sqrt(p * (1 - p) / (128 * 128))));
    EXPECT_TRUE(same(output, output.ne(0).to(at::kFloat).mul(1 / (1 - p))));
  }
}

TEST(KeyedDropout, DividesByOneMinusPInTheTypeOfTheInput) {
  const at::Tensor input = integers({4, 50}).mul(3).add(1);  // never 0
  const at::Tensor output = keyed_dropout(input, 0.1, kDropoutKey, 0);
  EXPECT_EQ(output.scalar_type(), at::kDouble);
  EXPECT_TRUE(close(output, (input / 0.9).masked_fill(output.eq(0), 0), 1e-14));
  const at::Tensor small = keyed_dropout(input.to(at::kBFloat16), 0.5, kDropoutKey, 0);
  EXPECT_TRUE(same(small, (input * 2).to(at::kBFloat16).masked_fill(small.eq(0), 0)));
}

TEST(KeyedDropout, ASequenceHasTheSameMaskInAnyBatch) {
  const at::Tensor input = integers({7, 5, 3}).mul(3).add(1);
  const at::Tensor whole = keyed_dropout(input, 0.4, kDropoutKey, 20);
  for (int64_t start = 0; start < 7; ++start) {
    for (int64_t size = 1; start + size <= 7; ++size) {
      const at::Tensor part = keyed_dropout(input.narrow(0, start, size), 0.4, kDropoutKey, 20 + start);
      EXPECT_TRUE(same(part, whole.narrow(0, start, size)));
    }
  }
}

TEST(KeyedDropout, HeadsHaveTheSameMaskOnAnyRank) {
  const at::Tensor input = integers({4, 6, 5, 5}).mul(3).add(1);
  const at::Tensor whole = keyed_head_dropout(input, 0.4, kDropoutKey, 20, 0);
  for (int64_t start = 0; start < 6; ++start) {
    for (int64_t size = 1; start + size <= 6; ++size) {
      const at::Tensor heads = input.narrow(0, 1, 2).narrow(1, start, size);
      const at::Tensor part = keyed_head_dropout(heads, 0.4, kDropoutKey, 21, start);
      EXPECT_TRUE(same(part, whole.narrow(0, 1, 2).narrow(1, start, size)));
    }
  }
}

// Sequence parallelism: the tokens of all sequences in a row, cut anywhere.
TEST(KeyedDropout, ATokenHasTheSameMaskInAnySlice) {
  const at::Tensor input = integers({3, 5, 7}).mul(3).add(1);
  const at::Tensor whole = keyed_dropout(input, 0.4, kDropoutKey, 20).flatten(0, 1);
  for (int64_t start = 0; start < 15; ++start) {
    for (int64_t size = 1; start + size <= 15; ++size) {
      const at::Tensor slice = input.flatten(0, 1).narrow(0, start, size).clone().requires_grad_();
      const at::Tensor part = keyed_token_dropout(slice, 0.4, kDropoutKey, {20, 5, start});
      EXPECT_TRUE(same(part.detach(), whole.narrow(0, start, size)));
      part.sum().backward();
      EXPECT_TRUE(same(slice.grad().eq(0), part.eq(0)));
    }
  }
}

TEST(KeyedDropout, NothingIsKeptForBackward) {
  const at::Tensor input = at::ones({4, 1000}).requires_grad_();
  at::Tensor output;
  const auto memory = allocations_of([&] { output = keyed_dropout(input, 0.1, kDropoutKey, 0); });
  EXPECT_EQ(memory.peak, 4 * 1000 * 4);  // the output
}

TEST(KeyedDropout, ManyThreadsDrawTheSameMask) {
  const at::Tensor input = at::ones({7, 9973});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor alone = keyed_dropout(input, 0.3, kDropoutKey, 0);
  at::set_num_threads(3);
  EXPECT_TRUE(same(keyed_dropout(input, 0.3, kDropoutKey, 0), alone));
  at::set_num_threads(threads);
}

TEST(KeyedDropout, SequencesHeadsAndKeysHaveMasksOfTheirOwn) {
  const at::Tensor ones = at::ones({6, 4, 40});
  const at::Tensor masks = keyed_head_dropout(ones, 0.5, kDropoutKey, 0, 0).view({24, 40});
  const at::Tensor others = keyed_head_dropout(ones, 0.5, kDropoutKey.with("other"), 0, 0).view({24, 40});
  const at::Tensor all = at::cat({masks, others, keyed_dropout(at::ones({6, 40}), 0.5, kDropoutKey, 0)});
  EXPECT_EQ(std::get<0>(at::unique_dim(all, 0)).size(0), 24 + 24 + 6);
}

TEST(KeyedDropout, TheGradientHasTheMaskOfTheForwardPass) {
  for (const bool heads : {false, true}) {
    const at::Tensor input = integers({3, 4, 25}).mul(3).add(1).requires_grad_();
    const at::Tensor output =
        heads ? keyed_head_dropout(input, 0.25, kDropoutKey, 0, 0) : keyed_dropout(input, 0.25, kDropoutKey, 0);
    const at::Tensor gradient = integers({3, 4, 25}, 5).mul(3).add(1);
    output.backward(gradient);
    EXPECT_GT(output.eq(0).sum().item<int64_t>(), 0);
    EXPECT_TRUE(close(input.grad(), (gradient / 0.75).masked_fill(output.eq(0), 0), 1e-14));
  }
}

TEST(KeyedDropout, TheMaskFollowsIndicesNotMemory) {
  const at::Tensor input = integers({3, 4, 5}).mul(3).add(1);
  const at::Tensor strided = input.transpose(1, 2).contiguous().transpose(1, 2);
  ASSERT_FALSE(strided.is_contiguous());
  EXPECT_TRUE(same(keyed_dropout(strided, 0.5, kDropoutKey, 0), keyed_dropout(input, 0.5, kDropoutKey, 0)));
}

TEST(KeyedDropout, ProbabilityZeroReturnsTheInput) {
  const at::Tensor input = integers({3, 4, 5});
  EXPECT_TRUE(keyed_dropout(input, 0, kDropoutKey, 0).is_same(input));
  EXPECT_TRUE(keyed_head_dropout(input, 0, kDropoutKey, 0, 0).is_same(input));
}

TEST(KeyedDropout, AnEmptyBatchStaysEmpty) {
  EXPECT_EQ(keyed_dropout(at::zeros({0, 4}), 0.5, kDropoutKey, 0).sizes(), at::IntArrayRef({0, 4}));
  EXPECT_EQ(keyed_head_dropout(at::zeros({2, 0, 4}), 0.5, kDropoutKey, 0, 0).sizes(), at::IntArrayRef({2, 0, 4}));
}

TEST(KeyedDropout, ProbabilitiesOutsideAreRefusedWithTheirValue) {
  const at::Tensor input = integers({3, 4, 5});
  const auto dropout_error = [&](double p) {
    return message_of<c10::ValueError>([&] { keyed_dropout(input, p, kDropoutKey, 0); });
  };
  EXPECT_EQ(dropout_error(1), "a dropout probability of 1 is outside [0, 1); choose one inside.");
  EXPECT_THAT(dropout_error(-0.5), HasSubstr("a dropout probability of -0.5 is outside"));
  EXPECT_THAT(dropout_error(1.5), HasSubstr("a dropout probability of 1.5 is outside"));
  EXPECT_THAT(dropout_error(std::numeric_limits<double>::quiet_NaN()), HasSubstr("nan is outside"));
  EXPECT_THAT(message_of<c10::ValueError>([&] { keyed_head_dropout(input, 1, kDropoutKey, 0, 0); }),
              HasSubstr("a dropout probability of 1 is outside"));
  EXPECT_EQ(dropout_error(0.999), "no error");
}

}  // namespace
}  // namespace optp

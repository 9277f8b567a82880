// explicit_attention against LibTorch's own operations, and against calculus.
#include "modules/explicit_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <vector>

#include "parallel/dropout.h"
#include "tests/support/allocations.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::allocations_of;
using testing::close;
using testing::integers;

constexpr int64_t kBatch = 3, kHeads = 2, kTokens = 5, kHeadDim = 4;

struct Operands {
  explicit Operands(at::ScalarType type = at::kDouble) {
    for (int64_t i = 0; i < 3; ++i) {
      // As projections leave them: [B, T, H, K] transposed.
      const at::Tensor whole = integers({kBatch, kTokens, kHeads, kHeadDim}, 2 * i).mul(0.17).to(type);
      leaves.push_back(whole.transpose(1, 2).requires_grad_());
    }
  }
  at::Tensor attend(const AttentionMask& mask, const std::optional<AttentionDropout>& dropout) const {
    return explicit_attention(leaves[0], leaves[1], leaves[2], mask, dropout);
  }

  std::vector<at::Tensor> leaves;  // q, k, v
};

// Sequence 1 begins with padding, so that its first two queries see no key; sequence 2 ends with padding.
AttentionMask padded_mask(at::ScalarType type = at::kDouble) {
  at::Tensor present = at::ones({kBatch, kTokens}, at::kLong);
  present[1].slice(0, 0, 2).zero_();
  present[2].slice(0, 3).zero_();
  const at::Tensor hidden =
      present.eq(0).view({kBatch, 1, 1, kTokens}).logical_or(at::ones({kTokens, kTokens}, at::kBool).triu(1));
  const double lowest = type == at::kDouble ? std::numeric_limits<double>::lowest()
                                            : static_cast<double>(std::numeric_limits<float>::lowest());
  return {at::zeros(hidden.sizes(), type).masked_fill_(hidden, lowest), true};
}

// By autograd, all heads at once.
at::Tensor plain_attention(const Operands& operands, const AttentionMask& mask,
                           const std::optional<AttentionDropout>& dropout) {
  at::Tensor scores = operands.leaves[0].matmul(operands.leaves[1].transpose(-1, -2));
  if (mask.additive.defined()) {
    scores = at::where(mask.additive.eq(0), scores, mask.additive);
  } else {
    scores =
        scores.masked_fill(at::ones({kTokens, kTokens}, at::kBool).triu(1), -std::numeric_limits<double>::infinity());
  }
  at::Tensor p = scores.softmax(-1);
  if (dropout) p = keyed_head_dropout(p, dropout->p, dropout->key, dropout->first_sequence, dropout->first_head);
  return p.matmul(operands.leaves[2]);
}

TEST(ExplicitAttention, EqualsItsDefinitionInOutputAndGradients) {
  const std::optional<AttentionDropout> drops = AttentionDropout{0.3, RandomKey(5), 7, 4};
  for (const AttentionMask& mask : {AttentionMask{}, padded_mask()}) {
    for (const auto& dropout : {std::optional<AttentionDropout>(), drops}) {
      const Operands actual, expected;
      const at::Tensor output = actual.attend(mask, dropout);
      const at::Tensor reference = plain_attention(expected, mask, dropout);
      EXPECT_TRUE(close(output.detach(), reference.detach(), 1e-14));
      const at::Tensor gradient = integers(output.sizes(), 5);
      output.backward(gradient);
      reference.backward(gradient);
      for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(close(actual.leaves[i].grad(), expected.leaves[i].grad(), 1e-13)) << i;
    }
  }
}

TEST(ExplicitAttention, EqualsTheFusedKernelWithoutDropout) {
  const Operands actual, expected;
  const at::Tensor output = actual.attend({}, std::nullopt);
  const at::Tensor fused = at::scaled_dot_product_attention(expected.leaves[0], expected.leaves[1], expected.leaves[2],
                                                            {}, 0.0, /*is_causal=*/true, /*scale=*/1.0);
  EXPECT_TRUE(close(output.detach(), fused.detach(), 1e-14));
  output.sum().backward();
  fused.sum().backward();
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(close(actual.leaves[i].grad(), expected.leaves[i].grad(), 1e-13)) << i;
}

// Central differences of the weighted sum of the outputs.
TEST(ExplicitAttention, GradientsAreThoseOfCalculus) {
  const AttentionDropout dropout{0.3, RandomKey(5), 0, 0};
  const AttentionMask mask = padded_mask();
  const at::Tensor weights = integers({kBatch, kHeads, kTokens, kHeadDim}, 5);
  const Operands operands;
  (operands.attend(mask, dropout) * weights).sum().backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < 3; ++i) {
    for (const int64_t place : {0, 17, 55, 61, 90, 119}) {
      const auto value_at = [&](double step) {
        const Operands moved;
        at::Tensor leaf = moved.leaves[i].transpose(1, 2);  // contiguous
        leaf.view(-1)[place].add_(step);
        return (moved.attend(mask, dropout) * weights).sum().item<double>();
      };
      const double slope = (value_at(kStep) - value_at(-kStep)) / (2 * kStep);
      const at::Tensor gradient = operands.leaves[i].grad().transpose(1, 2).contiguous().view(-1);
      EXPECT_NEAR(gradient[place].item<double>(), slope, 1e-7) << i << ", " << place;
    }
  }
}

TEST(ExplicitAttention, BFloat16IsComputedWithinItsPrecision) {
  const Operands rounded(at::kBFloat16);
  Operands exact;
  for (size_t i = 0; i < 3; ++i) exact.leaves[i] = rounded.leaves[i].detach().to(at::kDouble).requires_grad_();
  const at::Tensor output = rounded.attend({}, std::nullopt);
  const at::Tensor expected = exact.attend({}, std::nullopt);
  EXPECT_EQ(output.scalar_type(), at::kBFloat16);
  // Scores up to 4 and probabilities are rounded to 8 bits; outputs are means of values up to 0.85.
  EXPECT_TRUE(close(output.detach(), expected.detach(), 0.85 * (4 + 1 + 1) / 256));
}

TEST(ExplicitAttention, ProbabilitiesAreNotKept) {
  std::vector<at::Tensor> leaves;
  for (int64_t i = 0; i < 3; ++i) leaves.push_back(at::randn({2, 4, 64, 2}).requires_grad_());
  at::Tensor output;
  const int64_t kept =
      allocations_of([&] {
        output = explicit_attention(leaves[0], leaves[1], leaves[2], {}, AttentionDropout{0.1, RandomKey(1), 0, 0});
      }).left;
  EXPECT_LE(kept, 2 * 4 * 64 * 2 * 4 + 64 * 64 + 256);  // the output and the causal mask
}

}  // namespace
}  // namespace optp

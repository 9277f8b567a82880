// Check "sampling": transformers' logits processors, and draws with the right probabilities.
#include "src/inference/sampling.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "src/checkpoint/safetensors.h"
#include "tests/support/errors.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;

TEST(Sampling, ProcessorsAreThoseOfTransformers) {
  const SafetensorsFile golden(std::filesystem::path(OPTP_GOLDEN) / "sampling.safetensors");
  const at::Tensor scores = golden.read("scores");
  const at::Tensor context = golden.read("context");
  int cases = 0;
  for (const std::string& name : golden.names()) {
    if (!name.ends_with(".options")) continue;
    const at::Tensor values = golden.read(name);
    const double* v = values.const_data_ptr<double>();
    const SamplingOptions options{v[1], static_cast<int64_t>(v[2]), v[3], v[0]};
    const at::Tensor expected = golden.read(name.substr(0, name.find('.')));
    for (int64_t row = 0; row < scores.size(0); ++row) {
      const int64_t* ids = context[row].const_data_ptr<int64_t>();
      at::Tensor actual = scores[row].clone();
      penalize_repetition_(actual, {ids, ids + context.size(1)}, options.repetition_penalty);
      actual = warp_scores(actual, options);
      // Exactly the same tokens stay, with the same scores but for rounding.
      EXPECT_TRUE(testing::same(actual.isfinite(), expected[row].isfinite())) << name << ", row " << row;
      const at::Tensor kept = expected[row].isfinite();
      EXPECT_TRUE(testing::close(actual.masked_select(kept), expected[row].masked_select(kept), 1e-5)) << name;
    }
    ++cases;
  }
  EXPECT_EQ(cases, 7);
}

TEST(Sampling, PenaltyOfAShardTouchesItsOwnIds) {
  const at::Tensor scores = testing::integers({10}).to(at::kFloat);
  at::Tensor whole = scores.clone();
  penalize_repetition_(whole, {1, 7, 7, 8}, 2.0);
  at::Tensor low = scores.narrow(0, 0, 6).clone(), high = scores.narrow(0, 6, 4).clone();
  penalize_repetition_(low, {1, 7, 7, 8}, 2.0, 0);
  penalize_repetition_(high, {1, 7, 7, 8}, 2.0, 6);
  EXPECT_TRUE(testing::same(at::cat({low, high}), whole));
  EXPECT_FALSE(whole.equal(scores));
}

TEST(Sampling, DrawsHaveTheirProbabilities) {
  const at::Tensor probabilities = at::tensor({0.5, 0.25, 0.125, 0.125, 0.0}, at::kDouble);
  const at::Tensor scores = probabilities.log() + 3;
  constexpr int kDraws = 20000;
  std::vector<double> counts(5);
  for (int i = 0; i < kDraws; ++i) counts[draw_token(scores, RandomKey(1).with(i))] += 1;
  for (int id = 0; id < 5; ++id) {
    const double p = probabilities[id].item<double>();
    const double five_sigma = 5 * std::sqrt(kDraws * p * (1 - p));
    EXPECT_NEAR(counts[id], kDraws * p, five_sigma) << id;
  }
}

TEST(Sampling, RefusesOptionsThatMakeNoSense) {
  const auto message = [](const SamplingOptions& options) {
    return testing::message_of<c10::ValueError>([&] { options.validate(); });
  };
  EXPECT_THAT(message({.temperature = -1}), HasSubstr("temperature -1"));
  EXPECT_THAT(message({.temperature = NAN}), HasSubstr("temperature nan"));
  EXPECT_THAT(message({.top_k = -3}), HasSubstr("top-k -3"));
  EXPECT_THAT(message({.top_p = 0}), HasSubstr("top-p 0"));
  EXPECT_THAT(message({.top_p = 1.5}), HasSubstr("top-p 1.5"));
  EXPECT_THAT(message({.repetition_penalty = 0}), HasSubstr("repetition-penalty 0"));
  EXPECT_EQ(message({.temperature = 0.7, .top_k = 5, .top_p = 0.5, .repetition_penalty = 1.2}), "no error");
}

}  // namespace
}  // namespace optp

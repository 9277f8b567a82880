// OPT in bfloat16 against transformers in bfloat16, by what both lose against float64
// (scripts/make_golden_bfloat16.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/checkpoint/model_source.h"
#include "src/checkpoint/safetensors.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

constexpr double kUnit = 1.0 / 256;  // half of the distance between 1 and the next bfloat16

// How far `actual` is from `exact`, relative to the root mean square of `exact`.
double relative_error(const at::Tensor& actual, const at::Tensor& exact) {
  return ((actual.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

class BFloat16 : public ::testing::TestWithParam<std::tuple<std::string, int64_t>> {};

TEST_P(BFloat16, LosesNoMoreThanTransformers) {
  const auto& [name, tp] = GetParam();
  const fs::path folder = fs::path(OPTP_GOLDEN) / name;
  const ModelSource source = find_model(folder.string());
  const SafetensorsFile inputs((folder / "expected.safetensors").string());
  const SafetensorsFile recorded((folder / "expected_bfloat16.safetensors").string());
  const auto read = [&](const std::string& key) { return recorded.read(key).to(at::kDouble); };
  const at::Tensor mask = inputs.read("attention_mask"), real = mask.to(at::kBool);
  const at::Tensor exact = read("exact.logits").index({real});
  const double their_logits = relative_error(read("bfloat16.logits").index({real}), exact);
  // Where rounding decides the side of 0 that a ReLU is on, gradients jump.
  const bool smooth = source.config.activation_function() == "gelu";

  testing::run_ranks(tp, [&](const Mesh& mesh) {
    OptForCausalLM model(source.config, mesh, at::kBFloat16);
    const auto shards = named_shards(*model);
    source.load_weights(shards, 0);
    for (const bool memory_for_time : {false, true}) {
      SCOPED_TRACE(memory_for_time ? "sequence parallel, activation checkpointing" : "plain");
      model->zero_grad();
      OptForwardOptions options{.attention_mask = mask,
                                .labels = inputs.read("labels"),
                                .sequence_parallel = memory_for_time,
                                .activation_checkpointing = memory_for_time};
      const OptOutput output = model->forward(inputs.read("input_ids"), options);
      EXPECT_EQ(output.logits.scalar_type(), at::kBFloat16);
      EXPECT_EQ(output.loss.scalar_type(), at::kFloat);
      const at::Tensor logits = output.logits.detach().index({real}).to(at::kDouble);
      // Some 30 roundings of half a unit at most lie between the embedding and the logits; independent ones add up to
      // the root of that.
      EXPECT_LT(relative_error(logits, exact), 4 * kUnit);
      EXPECT_LT(relative_error(logits, exact), 1.5 * their_logits);
      // A loss moves by the error of the label's logit and that of the logarithm, each at most the largest error.
      options.output_logits = false;
      const OptOutput chunked = model->forward(inputs.read("input_ids"), options);
      const double largest = (logits - exact).abs().max().item<double>();
      for (const at::Tensor& loss : {output.loss, chunked.loss}) {
        EXPECT_LT(std::abs(loss.item<double>() - read("exact.loss").item<double>()), 2 * largest);
      }
      chunked.loss.backward();
      double own = 0, theirs = 0;
      for (const NamedShard& entry : shards) {
        EXPECT_EQ(entry.tensor.grad().scalar_type(), at::kBFloat16);
        if (entry.name.ends_with("k_proj.bias")) continue;  // zero in exact arithmetic
        const at::Tensor gradient = gather_whole(entry.tensor.grad(), entry.shard, mesh.tensor(), entry.name);
        EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << entry.name;
        const at::Tensor exact_gradient = read("exact.gradient." + entry.name);
        own += std::pow(relative_error(gradient, exact_gradient), 2);
        theirs += std::pow(relative_error(read("bfloat16.gradient." + entry.name), exact_gradient), 2);
      }
      if (smooth) {
        EXPECT_LT(std::sqrt(own), 1.5 * std::sqrt(theirs));
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Transformers, BFloat16,
                         ::testing::Combine(::testing::Values("base", "opt-350m", "gelu", "no-bias"),
                                            ::testing::Values(1, 2, 3, 4)),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param) + "Tp" + std::to_string(std::get<1>(test.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace optp

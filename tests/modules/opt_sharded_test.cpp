// The core claim: OPT sharded over Gloo computes what the plain single-process model computes, and so do its gradients.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_init.h"
#include "modules/opt_reference.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::random_ids;
using testing::randomize;
using testing::run_ranks;
using testing::small_opt;

struct Shape {
  std::string name;
  OptConfig config;
};

std::vector<Shape> shapes() {
  return {
      {"opt125m", small_opt()},
      {"opt350m", small_opt().do_layer_norm_before(false).word_embed_proj_dim(12)},
      {"galactica", small_opt().enable_bias(false).layer_norm_elementwise_affine(false).activation_function("gelu")},
      {"untied", small_opt().tie_word_embeddings(false).vocab_size(53)},
      {"noFinalNorm", small_opt().remove_final_layer_norm(true)},
  };
}

class ShardedOpt : public ::testing::TestWithParam<std::tuple<Shape, int64_t>> {};

// float64, so that what is left is rounding (1e-13) and everything else is a mistake.
TEST_P(ShardedOpt, ForwardBackwardGradientsEqualReference) {
  const auto& [shape, tp] = GetParam();
  OptReference reference(shape.config);
  reference->to(at::kDouble);
  randomize(*reference, /*seed=*/7);
  const at::Tensor ids = random_ids(shape.config, 3, 9, /*seed=*/11);
  at::Tensor mask = at::ones_like(ids);
  mask[1].slice(0, 0, 4).zero_();  // left padding
  mask[2].slice(0, 6).zero_();     // right padding
  const at::Tensor labels = ids.masked_fill(mask.eq(0), -100);
  auto expected = reference->forward(ids, mask, labels);
  expected.loss.backward();
  const auto whole = reference->named_parameters();

  run_ranks(tp, [&, &config = shape.config](const Mesh& mesh) {
    OptForCausalLM model = shard(reference, mesh);
    const OptOutput output =
        model->forward(ids, {.attention_mask = mask, .labels = labels, .output_hidden_states = true});
    const at::Tensor real = mask.to(at::kBool);
    EXPECT_LT((output.logits - expected.logits).index({real}).abs().max().item<double>(), 1e-12);
    EXPECT_TRUE(output.logits.isfinite().all().item<bool>());
    EXPECT_LT((output.loss - expected.loss).abs().item<double>(), 1e-12);
    ASSERT_EQ(output.hidden_states.size(), static_cast<size_t>(config.num_hidden_layers() + 1));
    for (size_t i = 0; i < output.hidden_states.size(); ++i) {
      EXPECT_LT((output.hidden_states[i] - expected.hidden_states[i]).index({real}).abs().max().item<double>(), 1e-12);
    }
    output.loss.backward();
    const auto shards = named_shards(*model);
    EXPECT_EQ(shards.size(), whole.size());
    for (const NamedShard& entry : shards) {
      ASSERT_TRUE(entry.tensor.grad().defined()) << entry.name;
      const at::Tensor gradient = gather_whole(entry.tensor.grad(), entry.shard, mesh.tensor(), entry.name);
      EXPECT_LT((gradient - whole[entry.name].grad()).abs().max().item<double>(), 1e-12) << entry.name;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, ShardedOpt,
                         ::testing::Combine(::testing::ValuesIn(shapes()), ::testing::Values(1, 2, 3, 4)),
                         [](const auto& test) {
                           return std::get<0>(test.param).name + "Tp" + std::to_string(std::get<1>(test.param));
                         });

TEST(ShardedOptLogits, LocalLogitsAreTheRangeOfTheGathered) {
  const OptConfig config = small_opt();
  const at::Tensor ids = random_ids(config, 2, 5, 3);
  run_ranks(3, [&](const Mesh& mesh) {
    OptForCausalLM model(config, mesh);
    initialize(named_shards(*model), config, 0);
    const at::Tensor whole = model->forward(ids).logits;
    const at::Tensor local = model->forward(ids, {.gather_logits = false}).logits;
    const Range range = model->decoder->embed_tokens->layout().range(mesh.tensor().rank());
    EXPECT_TRUE(local.equal(whole.narrow(-1, range.start, range.size)));
  });
}

TEST(ShardedOptInit, EndToEndSameModelAtEveryDegreeBitForBit) {
  const OptConfig config = small_opt().word_embed_proj_dim(12);
  OptReference reference(config);
  initialize(named_shards(*reference), config, /*seed=*/5);
  const auto whole = reference->named_parameters();
  for (const int64_t tp : {1, 2, 3, 4}) {
    run_ranks(tp, [&](const Mesh& mesh) {
      OptForCausalLM model(config, mesh);
      initialize(named_shards(*model), config, /*seed=*/5);
      for (const NamedShard& entry : named_shards(*model)) {
        EXPECT_TRUE(entry.tensor.equal(entry.shard.slice(whole[entry.name]))) << entry.name << " tp " << tp;
      }
    });
  }
  const at::Tensor weight = whole["model.decoder.layers.0.fc1.weight"];
  EXPECT_NEAR(weight.std().item<double>(), config.init_std(), 0.1 * config.init_std());
  EXPECT_NEAR(weight.mean().item<double>(), 0, 0.1 * config.init_std());
  EXPECT_NEAR(whole["model.decoder.layers.0.fc2.weight"].std().item<double>(),
              config.init_std() / std::sqrt(2.0 * config.num_hidden_layers()), 0.1 * config.init_std());
  EXPECT_EQ(whole["model.decoder.embed_tokens.weight"][1].abs().max().item<double>(), 0);
}

TEST(ShardedOptDropout, MasksDoNotDependOnTheDegree) {
  const OptConfig config = small_opt().dropout(0.3).attention_dropout(0.2);
  const at::Tensor ids = random_ids(config, 4, 6, 3);
  at::Tensor expected, without;
  for (const int64_t tp : {1, 2, 3, 4}) {
    run_ranks(tp, [&](const Mesh& mesh) {
      OptForCausalLM model(config, mesh, at::kDouble);
      initialize(named_shards(*model), config, 0);
      const DropoutSource source{RandomKey(1).with("dropout").with(17)};
      const at::Tensor logits = model->forward(ids, {.dropout = source}).logits;
      // The second half of the batch alone, told where it stands in the whole, draws the same masks.
      const DropoutSource half{source.key, 2};
      const at::Tensor second = model->forward(ids.slice(0, 2), {.dropout = half}).logits;
      EXPECT_LT((second - logits.slice(0, 2)).abs().max().item<double>(), 1e-12);
      const at::Tensor plain = model->forward(ids).logits;
      if (mesh.world().rank() != 0) return;
      if (tp == 1) expected = logits, without = plain;
      EXPECT_LT((logits - expected).abs().max().item<double>(), 1e-12) << "tp " << tp;
      EXPECT_GT((logits - without).abs().max().item<double>(), 1e-3);
    });
  }
}

TEST(ShardedOptErrors, SayWhatToDo) {
  const OptConfig config = small_opt();
  EXPECT_THAT(message_of([&] { run_ranks(5, [&](const Mesh& mesh) { OptForCausalLM model(config, mesh); }); }),
              HasSubstr("the model has 4 heads"));
  OptForCausalLM model(config, Mesh());
  initialize(named_shards(*model), config, 0);
  const auto ids = [&](int64_t id) { return at::full({1, 3}, id, at::kLong); };
  EXPECT_THAT(message_of([&] { model->forward(ids(config.vocab_size())); }),
              HasSubstr("is outside the vocabulary of 61"));
  EXPECT_THAT(message_of([&] { model->forward(ids(-1)); }), HasSubstr("id -1 is outside"));
  EXPECT_THAT(message_of([&] { model->forward(at::full({1, 33}, 5, at::kLong)); }), HasSubstr("33 tokens"));
  EXPECT_THAT(message_of([&] { model->forward(at::ones({1, 3})); }), HasSubstr("pass int64 ids"));
  EXPECT_THAT(message_of([&] { model->forward(ids(4), {.labels = at::full({1, 3}, 61, at::kLong)}); }),
              HasSubstr("label 61 is outside"));
}

}  // namespace
}  // namespace optp

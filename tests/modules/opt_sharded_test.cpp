// The core claim: OPT sharded over Gloo computes what the plain single-process model computes, and so do its gradients.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
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

// Every combination of what trades memory for time.
struct Switches {
  bool sequence_parallel, activation_checkpointing;
};
constexpr Switches kSwitches[] = {{false, false}, {false, true}, {true, false}, {true, true}};

std::string trace_of(const Switches& switches) {
  return std::string(switches.sequence_parallel ? "sequence parallel, " : "") +
         (switches.activation_checkpointing ? "activation checkpointing" : "");
}

// Equal on this rank and, where every rank holds the whole, the same bits on all of them.
void expect_gradients(OptForCausalLM& model, const torch::OrderedDict<std::string, at::Tensor>& whole,
                      const ProcessGroup& group) {
  const auto shards = named_shards(*model);
  EXPECT_EQ(shards.size(), whole.size());
  for (const NamedShard& entry : shards) {
    ASSERT_TRUE(entry.tensor.grad().defined()) << entry.name;
    const at::Tensor gradient = gather_whole(entry.tensor.grad(), entry.shard, group, entry.name);
    EXPECT_LT((gradient - whole[entry.name].grad()).abs().max().item<double>(), 1e-12) << entry.name;
    if (!entry.shard.replicated()) continue;
    const at::Tensor all = group.all_gather(gradient.unsqueeze(0), 0, {group.size(), group.size()}, entry.name);
    EXPECT_TRUE(all.eq(gradient).all().item<bool>()) << entry.name << " differs between the ranks";
  }
}

class ShardedOpt : public ::testing::TestWithParam<std::tuple<Shape, int64_t>> {
 protected:
  OptReference random_reference() const {
    OptReference reference(std::get<0>(GetParam()).config);
    reference->to(at::kDouble);
    randomize(*reference, /*seed=*/7);
    return reference;
  }
};

// float64, so that what is left is rounding (1e-13) and everything else is a mistake.
TEST_P(ShardedOpt, ForwardBackwardGradientsEqualReference) {
  const auto& [shape, tp] = GetParam();
  OptReference reference = random_reference();
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
    for (const Switches& switches : kSwitches) {
      SCOPED_TRACE(trace_of(switches));
      model->zero_grad();
      const OptOutput output = model->forward(ids, {.attention_mask = mask,
                                                    .labels = labels,
                                                    .output_hidden_states = true,
                                                    .sequence_parallel = switches.sequence_parallel,
                                                    .activation_checkpointing = switches.activation_checkpointing});
      const at::Tensor real = mask.to(at::kBool);
      EXPECT_LT((output.logits - expected.logits).index({real}).abs().max().item<double>(), 1e-12);
      EXPECT_TRUE(output.logits.isfinite().all().item<bool>());
      EXPECT_LT((output.loss - expected.loss).abs().item<double>(), 1e-12);
      ASSERT_EQ(output.hidden_states.size(), static_cast<size_t>(config.num_hidden_layers() + 1));
      for (size_t i = 0; i < output.hidden_states.size(); ++i) {
        const at::Tensor difference = output.hidden_states[i] - expected.hidden_states[i];
        EXPECT_LT(difference.index({real}).abs().max().item<double>(), 1e-12);
      }
      output.loss.backward();
      expect_gradients(model, whole, mesh.tensor());
    }
  });
}

// The way a training step asks: the head in chunks, no logits.
TEST_P(ShardedOpt, TargetsGiveTheLossAndGradientsOfTheReferenceWithoutLogits) {
  const auto& [shape, tp] = GetParam();
  OptReference reference = random_reference();
  const at::Tensor window = random_ids(shape.config, 3, 10, /*seed=*/11);
  const at::Tensor ids = window.slice(1, 0, 9);
  at::Tensor targets = window.slice(1, 1).clone();
  targets[1][3] = -100;
  // The reference shifts by itself, so it gets the whole window. What its last token would predict does not count.
  const at::Tensor labels = at::cat({at::full({3, 1}, -100, at::kLong), targets}, 1);
  const auto expected = reference->forward(window, {}, labels);
  expected.loss.backward();
  const double loss = expected.loss.item<double>();
  const auto whole = reference->named_parameters();

  run_ranks(tp, [&](const Mesh& mesh) {
    OptForCausalLM model = shard(reference, mesh);
    for (const Switches& switches : kSwitches) {
      SCOPED_TRACE(trace_of(switches));
      model->zero_grad();
      OptForwardOptions options{.targets = targets,
                                .sequence_parallel = switches.sequence_parallel,
                                .activation_checkpointing = switches.activation_checkpointing};
      const OptOutput output = model->forward(ids, options);
      EXPECT_FALSE(output.logits.defined());
      EXPECT_EQ(output.loss_count, 26);
      EXPECT_LT(std::abs(output.loss.item<double>() - loss), 1e-12);
      EXPECT_LT(std::abs(output.loss_sum.item<double>() - 26 * loss), 1e-10);
      // Micro-batches: sums add up, whatever each of them counts.
      for (int64_t b = 0; b < 3; ++b) {
        options.targets = targets.slice(0, b, b + 1);
        (model->forward(ids.slice(0, b, b + 1), options).loss_sum / 26).backward();
      }
      expect_gradients(model, whole, mesh.tensor());
    }
    EXPECT_TRUE(model->forward(ids, {.targets = targets, .output_logits = true}).logits.defined());
    EXPECT_FALSE(model->forward(ids, {.labels = ids, .output_logits = false}).logits.defined());
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

std::vector<at::Tensor> whole_gradients(OptForCausalLM& model, const ProcessGroup& group) {
  std::vector<at::Tensor> gradients;
  for (const NamedShard& entry : named_shards(*model)) {
    gradients.push_back(gather_whole(entry.tensor.grad(), entry.shard, group, entry.name));
  }
  return gradients;
}

class ShardedOptDropout : public ::testing::TestWithParam<std::tuple<double, double>> {};

// One process without switches is the yardstick: every degree and switch draws the masks that it draws.
TEST_P(ShardedOptDropout, LossAndGradientsDoNotDependOnDegreeSwitchesOrMicroBatches) {
  const auto& [dropout, attention_dropout] = GetParam();
  const OptConfig config = small_opt().dropout(dropout).attention_dropout(attention_dropout).init_std(0.2);
  const at::Tensor ids = random_ids(config, 4, 7, 3), targets = random_ids(config, 4, 7, 4);
  const DropoutSource source{RandomKey(1).with("dropout").with(17), /*first_sequence=*/8};
  at::Tensor loss;
  std::vector<at::Tensor> gradients;
  for (const int64_t tp : {1, 2, 3, 4}) {
    run_ranks(tp, [&](const Mesh& mesh) {
      OptForCausalLM model(config, mesh, at::kDouble);
      initialize(named_shards(*model), config, 0);
      for (const Switches& switches : kSwitches) {
        SCOPED_TRACE("tp " + std::to_string(tp) + " " + trace_of(switches));
        OptForwardOptions options{.targets = targets,
                                  .dropout = source,
                                  .sequence_parallel = switches.sequence_parallel,
                                  .activation_checkpointing = switches.activation_checkpointing};
        model->zero_grad();
        const at::Tensor own = model->forward(ids, options).loss_sum;
        own.backward();
        auto own_gradients = whole_gradients(model, mesh.tensor());
        if (!loss.defined()) loss = own.detach(), gradients = own_gradients;
        const auto expect_same = [&] {
          for (size_t i = 0; i < gradients.size(); ++i) {
            EXPECT_LT((own_gradients[i] - gradients[i]).abs().max().item<double>(), 1e-11) << i;
          }
        };
        EXPECT_LT((own.detach() - loss).abs().item<double>(), 1e-11);
        expect_same();
        // The halves of the batch, each told where it stands in the whole, draw the same masks.
        model->zero_grad();
        for (const int64_t start : {0, 2}) {
          options.targets = targets.slice(0, start, start + 2);
          options.dropout->first_sequence = 8 + start;
          model->forward(ids.slice(0, start, start + 2), options).loss_sum.backward();
        }
        own_gradients = whole_gradients(model, mesh.tensor());
        expect_same();
      }
      EXPECT_GT((model->forward(ids, {.targets = targets}).loss_sum - loss).abs().item<double>(), 1e-3);
      const DropoutSource other{RandomKey(1).with("dropout").with(18), 8};
      EXPECT_GT((model->forward(ids, {.targets = targets, .dropout = other}).loss_sum - loss).abs().item<double>(),
                1e-3);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Probabilities, ShardedOptDropout,
                         ::testing::Values(std::tuple(0.3, 0.0), std::tuple(0.0, 0.2), std::tuple(0.3, 0.2)),
                         [](const auto& test) { return "Case" + std::to_string(test.index); });

TEST(ShardedOptSwitches, CheckpointingGivesTheSameBits) {
  const OptConfig config = small_opt().dropout(0.3).attention_dropout(0.2).init_std(0.2);
  const at::Tensor ids = random_ids(config, 3, 5, 3);
  at::Tensor mask = at::ones_like(ids);
  mask[1].slice(0, 0, 2).zero_();
  run_ranks(3, [&](const Mesh& mesh) {
    OptForCausalLM model(config, mesh);
    initialize(named_shards(*model), config, 5);
    for (const bool sequence_parallel : {false, true}) {
      std::vector<std::vector<at::Tensor>> found;
      for (const bool checkpointing : {false, true}) {
        model->zero_grad();
        for (const bool drops : {false, true}) {
          OptForwardOptions options{.attention_mask = mask,
                                    .targets = ids,
                                    .sequence_parallel = sequence_parallel,
                                    .activation_checkpointing = checkpointing};
          if (drops) options.dropout = DropoutSource{RandomKey(1)};
          const at::Tensor loss = model->forward(ids, options).loss;
          loss.backward();
          found.push_back({loss.detach()});
          for (const auto& parameter : model->parameters()) found.back().push_back(parameter.grad().clone());
        }
      }
      for (size_t i = 0; i < found[0].size(); ++i) {
        EXPECT_TRUE(found[2][i].equal(found[0][i])) << i;
        EXPECT_TRUE(found[3][i].equal(found[1][i])) << i << " with dropout";
      }
    }
  });
}

TEST(ShardedOptSwitches, FrozenParametersGetNoGradientAndTheOthersTheirs) {
  const OptConfig config = small_opt().do_layer_norm_before(false).word_embed_proj_dim(12);
  OptReference reference(config);
  reference->to(at::kDouble);
  randomize(*reference, 7);
  const at::Tensor ids = random_ids(config, 2, 6, 3);
  reference->forward(ids, {}, ids).loss.backward();
  const auto whole = reference->named_parameters();
  // Embeddings alone, so that the first layer's input needs no gradient; a layer and its norms; all but one bias.
  const std::vector<std::function<bool(const std::string&)>> frozen = {
      [](const std::string& name) {
        return name.find("embed") != std::string::npos || name.find("project_in") != std::string::npos;
      },
      [](const std::string& name) { return name.find("layers.1.") != std::string::npos; },
      [](const std::string& name) { return name != "model.decoder.layers.0.fc2.bias"; },
  };
  for (const int64_t tp : {1, 3}) {
    run_ranks(tp, [&](const Mesh& mesh) {
      for (const auto& is_frozen : frozen) {
        for (const Switches& switches : kSwitches) {
          SCOPED_TRACE(trace_of(switches));
          OptForCausalLM model = shard(reference, mesh);
          for (const NamedShard& entry : named_shards(*model)) {
            at::Tensor(entry.tensor).requires_grad_(!is_frozen(entry.name));
          }
          const OptOutput output = model->forward(ids, {.labels = ids,
                                                        .output_logits = false,
                                                        .sequence_parallel = switches.sequence_parallel,
                                                        .activation_checkpointing = switches.activation_checkpointing});
          output.loss.backward();
          for (const NamedShard& entry : named_shards(*model)) {
            ASSERT_EQ(entry.tensor.grad().defined(), !is_frozen(entry.name)) << entry.name;
            if (is_frozen(entry.name)) continue;
            const at::Tensor gradient = gather_whole(entry.tensor.grad(), entry.shard, mesh.tensor(), entry.name);
            EXPECT_LT((gradient - whole[entry.name].grad()).abs().max().item<double>(), 1e-12) << entry.name;
          }
        }
      }
    });
  }
}

TEST(ShardedOptSwitches, FewerTokensThanRanksAreNotSliced) {
  const OptConfig config = small_opt();
  const at::Tensor ids = random_ids(config, 1, 2, 3);
  run_ranks(3, [&](const Mesh& mesh) {
    OptForCausalLM model(config, mesh, at::kDouble);
    initialize(named_shards(*model), config, 5);
    const at::Tensor plain = model->forward(ids).logits;
    EXPECT_TRUE(model->forward(ids, {.sequence_parallel = true}).logits.equal(plain));
  });
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
  EXPECT_THAT(message_of([&] { model->forward(ids(4), {.labels = ids(4), .targets = ids(4)}); }),
              HasSubstr("pass one"));
  EXPECT_THAT(message_of([&] { model->forward(ids(4), {.targets = ids(4).slice(1, 1)}); }),
              HasSubstr("targets are Long [1, 2]; pass int64 [1, 3]"));
}

}  // namespace
}  // namespace optp

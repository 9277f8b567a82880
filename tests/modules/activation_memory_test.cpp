// What autograd keeps alive between forward and backward: as much as the header of OptDecoderLayer says, and less with
// sequence parallelism and activation checkpointing.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_init.h"
#include "tests/support/allocations.h"
#include "tests/support/ranks.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

using testing::allocations_of;
using testing::random_ids;
using testing::run_ranks;

constexpr int64_t kSequences = 2, kSequenceTokens = 128;

OptConfig memory_config() {
  return OptConfig()
      .num_hidden_layers(4)
      .hidden_size(64)
      .num_attention_heads(4)
      .ffn_dim(256)
      .vocab_size(64)
      .max_position_embeddings(kSequenceTokens);
}

struct Case {
  std::string name;
  bool sequence_parallel, activation_checkpointing, dropout;
};

// Bytes that forward leaves behind on this rank, and the most that exist at once in forward and backward.
testing::Allocations memory_of(OptForCausalLM& model, const Case& settings) {
  const at::Tensor ids = random_ids(model->config(), kSequences, kSequenceTokens, 1);
  OptForwardOptions options{.targets = ids,
                            .sequence_parallel = settings.sequence_parallel,
                            .activation_checkpointing = settings.activation_checkpointing};
  if (settings.dropout) options.dropout = DropoutSource{RandomKey(1)};
  at::Tensor loss;
  testing::Allocations memory;
  memory.left = allocations_of([&] { loss = model->forward(ids, options).loss; }).left;
  loss.reset();
  for (const auto& parameter : model->parameters()) parameter.mutable_grad() = at::zeros_like(parameter);
  memory.peak = allocations_of([&] { model->forward(ids, options).loss.backward(); }).peak;
  return memory;
}

// What the header says, in bytes: float32, even degrees.
double expected_bytes(const OptConfig& config, int64_t tp, const Case& settings) {
  const auto d = static_cast<double>(config.hidden_size()), f = static_cast<double>(config.ffn_dim());
  const double t = static_cast<double>(tp), slice = settings.sequence_parallel ? t : 1;
  const double statistics = 4 / slice + static_cast<double>(config.num_attention_heads()) / t;
  const double layer = settings.activation_checkpointing ? d / slice : 4 * d / slice + (4 * d + f) / t + statistics;
  const double final_norm = (d + 2) / slice;
  const double tokens = kSequences * kSequenceTokens;
  const double head = tokens * d + static_cast<double>(config.vocab_size()) / t * d;
  return 4 * (tokens * (static_cast<double>(config.num_hidden_layers()) * layer + final_norm) + head);
}

class ActivationMemory : public ::testing::TestWithParam<int64_t> {};

INSTANTIATE_TEST_SUITE_P(Tp, ActivationMemory, ::testing::Values(1, 2, 4), ::testing::PrintToStringParamName());

TEST_P(ActivationMemory, IsWhatTheFormulaSaysWithEachSwitch) {
  const int64_t tp = GetParam();
  const OptConfig config = memory_config().dropout(0.1).attention_dropout(0.1);
  run_ranks(tp, [&](const Mesh& mesh) {
    OptForCausalLM model(config, mesh);
    initialize(named_shards(*model), config, 0);
    std::map<std::string, testing::Allocations> found;
    for (const Case& settings :
         {Case{"plain", false, false, false}, Case{"plain with dropout", false, false, true},
          Case{"sequence parallel", true, false, false}, Case{"sequence parallel with dropout", true, false, true},
          Case{"checkpointing", false, true, false}, Case{"both", true, true, false},
          Case{"both with dropout", true, true, true}}) {
      SCOPED_TRACE(settings.name);
      const auto memory = memory_of(model, settings);
      found[settings.name] = memory;
      const double expected = expected_bytes(config, tp, settings);
      EXPECT_NEAR(static_cast<double>(memory.left), expected, 0.03 * expected);
    }
    EXPECT_LT(found["checkpointing"].left, 0.25 * found["plain"].left);
    EXPECT_LT(found["checkpointing"].peak, 0.6 * found["plain"].peak);
    if (tp == 1) return;
    EXPECT_LT(found["sequence parallel"].left, found["plain"].left);
    EXPECT_LT(found["both"].left, found["checkpointing"].left);
  });
}

}  // namespace
}  // namespace optp

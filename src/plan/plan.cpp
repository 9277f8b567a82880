#include "src/plan/plan.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "modules/opt_for_causal_lm.h"
#include "parallel/gradients.h"
#include "src/plan/step_memory.h"
#include "src/train/freeze.h"

namespace optp {
namespace {

OptForCausalLM weightless_model(const PlanOptions& options, int64_t rank) {
  const Mesh mesh = Mesh::unconnected(options.tp, rank % options.tp);
  OptForCausalLM model(options.config, mesh, at::TensorOptions(options.type).device(at::kMeta));
  freeze_parameters(named_shards(*model), options.freeze);
  return model;
}

void check_plan(const PlanOptions& options) {
  options.config.validate();
  options.optimizer.validate();
  TORCH_CHECK_VALUE(options.tp >= 1 && options.dp >= 1, "a mesh of tp ", options.tp, " x dp ", options.dp,
                    " has no ranks; use 1 or more of each.");
  constexpr int64_t kMostRanks = int64_t{1} << 20;
  TORCH_CHECK_VALUE(options.tp <= kMostRanks && options.dp <= kMostRanks / options.tp, "a mesh of tp ", options.tp,
                    " x dp ", options.dp, " is not credible; worlds go up to ", kMostRanks, " ranks.");
  options.shape.validate(options.config, options.dp);
}

}  // namespace

RankPlan plan_rank(const PlanOptions& options, int64_t rank) {
  check_plan(options);
  OptForCausalLM model = weightless_model(options, rank);
  const std::vector<NamedShard> shards = named_shards(*model);
  RankPlan plan{.rank = rank};
  for (const NamedShard& entry : shards) {
    plan.parameters += entry.tensor.numel();
    plan.parameter_bytes += static_cast<int64_t>(entry.tensor.nbytes());
  }
  Gradients gradients(shards, model->mesh());
  plan.gradient_bytes = gradients.bytes();
  plan.optimizer_bytes = Optimizer(gradients, options.optimizer).bytes();
  const int64_t copy = rank / options.tp;
  const int64_t rows = options.shape.rows(options.dp, copy);
  plan.activation_bytes =
      activation_peak_bytes(*model, local_sizes(*model, options.shape, rows), options.shape.activation_checkpointing,
                            rows < options.shape.part(options.dp, copy));
  plan.peak_bytes = plan.parameter_bytes + plan.gradient_bytes + plan.optimizer_bytes + plan.activation_bytes;
  return plan;
}

std::vector<PlannedCollective> plan_collectives(const PlanOptions& options, int64_t rank) {
  check_plan(options);
  OptForCausalLM model = weightless_model(options, rank);
  std::vector<PlannedCollective> all;
  const int64_t part = options.shape.part(options.dp, rank / options.tp);
  const int64_t rows = options.shape.rows(options.dp, rank / options.tp);
  const auto add_micro_batches = [&](int64_t sequences, int64_t times) {
    if (sequences == 0 || times == 0) return;
    add_model_collectives(all, *model, local_sizes(*model, options.shape, sequences),
                          options.shape.activation_checkpointing, times);
  };
  add_micro_batches(rows, part / rows);
  add_micro_batches(part % rows, 1);
  const int64_t world = options.tp * options.dp;
  if (options.dp > 1) {
    const Gradients gradients(named_shards(*model), model->mesh());
    add_collective(all, "step targets", "all_reduce", 1, sizeof(int64_t));
    add_collective(all, "gradients", "all_reduce", gradients.buckets(), gradients.bytes());
  }
  // The norm and its finiteness, the loss, and two figures of each rank (src/train/training_step.cpp).
  if (world > 1) {
    add_collective(all, "gradient norm", "all_reduce", 1, (3 + 2 * world) * static_cast<int64_t>(sizeof(double)));
  }
  return all;
}

Plan make_plan(const PlanOptions& options) {
  check_plan(options);
  Plan plan;
  plan.parameters = options.config.num_parameters();
  // Ranks with parts of the same sizes are alike; there are few kinds of them, however many ranks.
  const int64_t head_dim = options.config.head_dim();
  std::map<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>, RankPlan> kinds;
  for (int64_t rank = 0; rank < options.tp * options.dp; ++rank) {
    const int64_t part = rank % options.tp;
    const auto own = [&](int64_t total, int64_t block) {
      return ShardLayout(total, options.tp, block).range(part).size;
    };
    const int64_t sequences = options.shape.part(options.dp, rank / options.tp);
    const int64_t tokens = options.shape.rows(options.dp, rank / options.tp) * options.shape.seq_len;
    const auto kind =
        std::tuple(sequences, own(options.config.hidden_size(), head_dim), own(options.config.ffn_dim(), 1),
                   own(options.config.vocab_size(), 1), tokens < options.tp ? 0 : own(tokens, 1));
    auto known = kinds.find(kind);
    if (known == kinds.end()) known = kinds.emplace(kind, plan_rank(options, rank)).first;
    plan.ranks.push_back(known->second);
    plan.ranks.back().rank = rank;
  }
  plan.collectives = plan_collectives(options, 0);
  return plan;
}

}  // namespace optp

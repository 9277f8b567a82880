#include "src/verify/memory_trial.h"

#include <ATen/ATen.h>

#include <map>
#include <optional>

#include "src/train/training_step.h"
#include "src/verify/allocation_tracker.h"
#include "src/verify/session.h"

namespace optp {
namespace {

PlanOptions trial_plan(const Session& session) {
  const VerifyOptions& options = session.options();
  PlanOptions plan;
  plan.config = OptConfig(session.config()).dropout(0).attention_dropout(0);  // as the verified model runs
  plan.type = options.type;
  plan.tp = session.mesh().tensor().size();
  plan.dp = session.mesh().data().size();
  plan.shape = {options.batch_size, options.micro_batch_size, options.seq_len, options.sequence_parallel,
                options.activation_checkpointing};
  return plan;
}

int64_t storage_bytes(const std::vector<NamedShard>& parameters) {
  std::map<const void*, int64_t> storages;  // a storage that several tensors share counts once
  for (const NamedShard& entry : parameters) {
    storages[entry.tensor.storage().unsafeGetStorageImpl()] = static_cast<int64_t>(entry.tensor.storage().nbytes());
  }
  int64_t bytes = 0;
  for (const auto& [storage, size] : storages) bytes += size;
  return bytes;
}

// This copy's part of the first batch.
Examples examples_of(const Session& session, const Range& part) {
  const Batch batch = session.batch(0);
  return {batch.input_ids.narrow(0, part.start, part.size),
          at::constant_pad_nd(batch.labels.slice(1, 1), {0, 1}, -100).narrow(0, part.start, part.size)};
}

}  // namespace

MemoryTrial try_memory(Session& session, const AnonymousGrowth& start, int64_t gradient_bytes) {
  const Mesh& mesh = session.mesh();
  const PlanOptions plan = trial_plan(session);
  MemoryTrial trial;
  trial.planned = plan_rank(plan, mesh.world().rank());
  trial.planned_collectives = plan_collectives(plan, mesh.world().rank());
  for (const NamedShard& entry : session.shards()) trial.parameters += entry.tensor.numel();
  trial.parameter_bytes = storage_bytes(session.shards());
  trial.gradient_bytes = gradient_bytes;

  {  // Memory does not depend on the weights, but that they have been written.
    const at::NoGradGuard no_grad;
    for (const NamedShard& entry : session.shards()) entry.tensor.zero_();
  }
  std::optional<Optimizer> optimizer;
  trial.optimizer_bytes = bytes_left_by([&] { optimizer.emplace(session.gradients(), plan.optimizer); });
  const LossFunction loss = [&](const TrainingBatch& batch) {
    OptForwardOptions options = session.forward_options(/*attention_mask=*/{});
    options.targets = batch.target;
    return session.model()->forward(batch.input, options).loss_sum;
  };
  const int64_t copy = mesh.data().rank();
  TrainingStep step(loss, mesh, session.gradients(), *optimizer, plan.shape.rows(plan.dp, copy), /*grad_clip=*/1);
  const Range part = ShardLayout(plan.shape.batch_size, plan.dp).range(copy);
  const Examples examples = examples_of(session, part);
  const std::vector<ProcessGroup> groups{mesh.tensor(), mesh.data(), mesh.world()};
  for (const int64_t number : {1, 2}) {
    for (ProcessGroup group : groups) group.reset_counts();
    step.run(examples, number, part.start, /*lr=*/1e-3, /*stop_code=*/0);
  }
  for (const ProcessGroup& group : groups) {
    for (const auto& [site, count] : group.counts())
      add_collective(trial.collectives, site, "", count.calls, count.bytes);
  }
  trial.peak_bytes = start.peak_bytes();
  session.gradients().start_step();
  return trial;
}

}  // namespace optp

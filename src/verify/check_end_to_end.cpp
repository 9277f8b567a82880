// Check "end-to-end" (also "legacy"): the shards make the whole, inference and training come out the same.
#include <ATen/ATen.h>

#include "src/verify/checks.h"
#include "src/verify/training.h"

namespace optp {
namespace {

// Parameters that differ from the reference's in any bit when the shards of all ranks are put together.
double count_changed_parameters(Session& session) {
  torch::OrderedDict<std::string, at::Tensor> whole;
  session.with_reference([&](OptReferenceImpl& reference) { whole = reference.named_parameters(); });
  double changed = 0;
  for (const NamedShard& entry : session.shards()) {
    const at::Tensor assembled =
        gather_whole(entry.tensor, entry.shard, session.mesh().tensor(), "verify gather " + entry.name);
    const at::Tensor expected =
        session.from_reference(session.has_reference() ? whole[entry.name] : at::Tensor(), entry.shard.shape);
    if (!assembled.equal(expected.to(assembled.scalar_type()))) ++changed;
  }
  return max_over_ranks(changed, session.world());
}

Measurement measure_next_tokens(Session& session, int64_t length) {
  at::NoGradGuard no_grad;
  const Batch batch = session.batch(length, session.options().batch_size, length);
  const at::Tensor last =
      session.model()->forward(batch.input_ids, session.forward_options({})).logits.select(1, -1);  // [B, V]
  at::Tensor expected;
  session.with_reference(
      [&](OptReferenceImpl& reference) { expected = reference.forward(batch.input_ids).logits.select(1, -1); });
  expected = session.from_reference(expected, last.sizes());
  std::vector<Difference> difference(1);
  difference[0].add(last, expected);
  const at::Tensor chosen = last.argmax(-1);
  double rounding = session.options().forward_tolerance;
  if (session.in_bfloat16()) {
    session.with_bfloat16_reference([&](OptReferenceImpl& reference) {
      const at::Tensor rounded = reference.forward(batch.input_ids).logits.select(1, -1);
      rounding = 2 * (rounded - expected).abs().max().item<double>();
    });
    rounding = session.from_reference(rounding);
  }
  // Two words that tie within rounding may change places: the word chosen here must score as the reference's best does.
  const at::Tensor lost = expected.amax(-1) - expected.gather(-1, chosen.unsqueeze(-1)).squeeze(-1);
  const auto wrong = lost.gt(2 * rounding).sum().item<int64_t>();
  std::string tokens;
  for (int64_t row = 0; row < chosen.size(0); ++row) {
    tokens += (row > 0 ? ", " : "") + std::to_string(chosen[row].item<int64_t>());
  }
  difference = max_over_ranks(difference, session.world());
  Measurement result = measure("next tokens that differ, prompts of length " + std::to_string(length),
                               max_over_ranks(static_cast<double>(wrong), session.world()), 0, "chosen: " + tokens);
  result.max_abs_difference = difference[0].max_abs;
  result.max_rel_difference = difference[0].max_rel();
  return result;
}

}  // namespace

Measurements check_end_to_end(Session& session) {
  session.reset_weights();
  Measurements rows{measure("parameters that the shards do not make whole", count_changed_parameters(session), 0,
                            "bit for bit, " + std::to_string(session.shards().size()) + " tensors")};
  for (const int64_t length : {5, 10, 15}) {
    if (length <= session.config().max_position_embeddings()) rows.push_back(measure_next_tokens(session, length));
  }
  const TrainingCurve curve = train_both(session, {.batches = 2, .epochs = 2, .most_epochs = 2});
  for (size_t epoch = 0; epoch < curve.model.size(); ++epoch) {
    rows.push_back(measure_loss("training, mean loss of epoch " + std::to_string(epoch + 1), curve.model[epoch],
                                curve.reference[epoch], session.options().loss_tolerance));
  }
  return rows;
}

}  // namespace optp

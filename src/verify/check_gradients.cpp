// Check "gradients": shapes, replicas, ranges, and calculus.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "modules/opt_init.h"
#include "parallel/random.h"
#include "src/verify/checks.h"

namespace optp {
namespace {

constexpr double kStep = 1e-4;  // of the central differences: their own error, h^2 / 6 f''' + 1e-16 / h, is near 1e-9

// A model of the same kind and on the same mesh, small enough for two forward passes an element. GELU in place of ReLU,
// whose kinks have no central difference.
OptConfig small_config(const Session& session) {
  const int64_t heads = std::max<int64_t>(4, session.mesh().tensor().size());
  OptConfig config = session.config();
  config.num_hidden_layers(2).num_attention_heads(heads).hidden_size(4 * heads).ffn_dim(4 * heads + 3);
  config.vocab_size(64 + heads).max_position_embeddings(8).activation_function("gelu").init_std(0.2);
  config.pad_token_id(1);
  if (session.config().has_projections()) config.word_embed_proj_dim(2 * heads + 1);
  return config;
}

// Adds `amount` to element `index` (row-major, of the whole parameter) on every rank that holds it.
void nudge(const NamedShard& entry, int64_t index, double amount) {
  at::Tensor element = entry.tensor;
  std::vector<int64_t> position(entry.shard.shape.size());
  for (size_t d = position.size(); d-- > 0; index /= entry.shard.shape[d]) position[d] = index % entry.shard.shape[d];
  if (entry.shard.dim) {
    int64_t& along = position[*entry.shard.dim];
    if (!entry.shard.range().contains(along)) return;
    along -= entry.shard.range().start;
  }
  for (const int64_t i : position) element = element.select(0, i);
  element.add_(amount);
}

// Largest |central difference - autograd| over some elements of every parameter, relative to the largest gradient.
Measurement measure_calculus(Session& session) {
  const OptConfig config = small_config(session);
  OptForCausalLM model(config, session.mesh(), at::kDouble);
  const std::vector<NamedShard> shards = named_shards(*model);
  initialize(shards, config, session.options().seed);
  const int64_t tokens = 6;
  at::Tensor ids = at::arange(2 * tokens, at::kLong).mul_(7).add_(3).remainder_(config.vocab_size()).view({2, tokens});
  OptForwardOptions options = session.forward_options({});
  options.labels = ids;
  options.output_logits = false;
  const auto loss = [&] { return model->forward(ids, options).loss; };
  loss().backward();

  at::NoGradGuard no_grad;
  Difference difference;
  int64_t elements = 0;
  std::string worst;
  for (const NamedShard& entry : shards) {
    const at::Tensor gradient =
        gather_whole(entry.tensor.grad(), entry.shard, session.mesh().tensor(), "verify gather").flatten();
    // The element with the largest gradient, where a wrong factor shows best, and one by chance.
    uint32_t chance = 0;
    draw_bits(RandomKey(session.options().seed).with("calculus").with(entry.name), 0, 1, &chance);
    for (const int64_t index : {gradient.abs().argmax().item<int64_t>(), chance % gradient.numel()}) {
      nudge(entry, index, kStep);
      const double above = loss().item<double>();
      nudge(entry, index, -2 * kStep);
      const double below = loss().item<double>();
      nudge(entry, index, kStep);
      const double numeric = (above - below) / (2 * kStep);
      const double exact = gradient[index].item<double>();
      if (!(std::abs(numeric - exact) <= difference.max_abs)) worst = entry.name;
      difference.max_abs = std::max(difference.max_abs, std::abs(numeric - exact));
      if (!std::isfinite(numeric - exact)) difference.max_abs = INFINITY;
      difference.max_expected = std::max(difference.max_expected, std::abs(exact));
      ++elements;
    }
  }
  difference = max_over_ranks(std::vector{difference}, session.world())[0];
  return measure("central differences against autograd, small float64 model", difference,
                 1e-6 * std::max(1.0, difference.max_expected),
                 std::to_string(elements) + " elements of " + std::to_string(shards.size()) +
                     " tensors; furthest apart: " + worst);
}

}  // namespace

Measurements check_gradients(Session& session) {
  session.reset_weights();
  const Batch batch = session.batch(0);
  session.model_loss(batch);
  session.reference_loss(batch);

  double misshapen = 0;
  for (size_t i = 0; i < session.shards().size(); ++i) {
    const NamedShard& entry = session.shards()[i];
    const at::Tensor gradient = session.gradient(i);
    const bool right = gradient.defined() && gradient.sizes() == entry.tensor.sizes() &&
                       entry.tensor.sizes() == at::IntArrayRef(entry.shard.local_shape());
    if (!right) ++misshapen;
  }
  const auto count = std::to_string(session.shards().size());
  Measurements rows{measure("gradients whose shape is not their parameter's",
                            max_over_ranks(misshapen, session.world()), 0, "of " + count + " on every rank")};
  rows.push_back(measure("replicated parameters that differ between ranks",
                         static_cast<double>(count_unequal_replicas(session, /*gradients=*/false)), 0, "bit for bit"));
  rows.push_back(measure("gradients of replicated parameters that differ between ranks",
                         static_cast<double>(count_unequal_replicas(session, /*gradients=*/true)), 0, "bit for bit"));
  for (Measurement& row : measure_gradients(session, batch)) rows.push_back(std::move(row));
  rows.push_back(measure_calculus(session));
  return rows;
}

}  // namespace optp

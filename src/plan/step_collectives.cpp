#include "src/plan/step_collectives.h"

#include <algorithm>

#include "parallel/vocab_parallel_linear_cross_entropy.h"

namespace optp {
namespace {

// The collectives of one micro-batch on a rank. Each function is a mapping of parallel/mappings.h applied to [tokens,
// width], with its forward and its backward; `forwards` says how often forward runs.
class ModelCollectives {
 public:
  ModelCollectives(std::vector<PlannedCollective>& all, const LocalSizes& sizes, int64_t times)
      : all_(all), sizes_(sizes), times_(times) {}

  // reduce_from, or reduce_scatter_from: partial sums leave a row-parallel layer.
  void sum_out(const std::string& name, int64_t width, int64_t forwards) {
    if (sizes_.sliced()) {
      reduce_scatter(name + " forward", width, forwards);
      all_gather(name + " backward", width, 1);
    } else {
      all_reduce(name + " forward", sizes_.tokens * width, forwards);
    }
  }

  // copy_to, or gathered_products: a whole activation enters column-parallel layers.
  void enter(const std::string& name, int64_t width, int64_t forwards, bool regather) {
    if (sizes_.sliced()) {
      all_gather(name + " forward", width, forwards);
      if (regather) all_gather(name + " regather", width, 1);
      reduce_scatter(name + " backward", width, 1);
    } else {
      all_reduce(name + " backward", sizes_.tokens * width, 1);
    }
  }

  // The gradients of parameters that every rank applies to its own tokens.
  void shared_parameters(const std::string& name, int64_t elements) {
    if (sizes_.sliced() && elements > 0) all_reduce(name + " parameters", elements, 1);
  }

  void head(int64_t width) {
    if (sizes_.sliced()) {
      all_gather("lm_head input", width, 1);
      reduce_scatter("lm_head backward", width, 1);
    } else {
      all_reduce("lm_head backward", sizes_.tokens * width, 1);
    }
  }

  // Three numbers a token, a call for each chunk of them.
  void loss() {
    const int64_t number = std::max<int64_t>(sizes_.element, sizeof(float));
    add("loss forward", "all_gather", (sizes_.tokens + kLossChunk - 1) / kLossChunk, 3 * sizes_.tokens * number);
  }

 private:
  // 16-bit numbers are added in float32.
  void all_reduce(const std::string& site, int64_t elements, int64_t calls) {
    add(site, "all_reduce", calls, calls * elements * std::max<int64_t>(sizes_.element, sizeof(float)));
  }
  void all_gather(const std::string& site, int64_t width, int64_t calls) {
    add(site, "all_gather", calls, calls * sizes_.largest_held * width * sizes_.element);
  }
  void reduce_scatter(const std::string& site, int64_t width, int64_t calls) {
    add(site, "reduce_scatter", calls, calls * sizes_.tokens * width * sizes_.element);
  }

  void add(const std::string& site, const std::string& operation, int64_t calls, int64_t bytes) {
    add_collective(all_, site, operation, times_ * calls, times_ * bytes);
  }

  std::vector<PlannedCollective>& all_;
  const LocalSizes& sizes_;
  int64_t times_;
};

}  // namespace

void add_collective(std::vector<PlannedCollective>& all, const std::string& site, const std::string& operation,
                    int64_t calls, int64_t bytes) {
  const auto known = std::find_if(all.begin(), all.end(), [&](const auto& entry) { return entry.site == site; });
  PlannedCollective& entry = known == all.end() ? all.emplace_back(PlannedCollective{site, operation}) : *known;
  entry.calls += calls;
  entry.bytes += bytes;
}

void add_model_collectives(std::vector<PlannedCollective>& all, const OptConfig& config, const LocalSizes& sizes,
                           bool activation_checkpointing, int64_t times) {
  if (sizes.tp == 1) return;
  ModelCollectives add(all, sizes, times);
  const int64_t hidden = sizes.hidden;
  const int64_t norm = config.layer_norm_elementwise_affine() ? 2 * hidden : 0;
  // A checkpointed layer runs forward twice; what it gathered the second time it keeps.
  const int64_t forwards = activation_checkpointing ? 2 : 1;
  const bool regather = !activation_checkpointing;
  add.sum_out("model.decoder.embed_tokens", sizes.embedding, 1);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string name = "model.decoder.layers." + std::to_string(i);
    add.enter(name + ".self_attn", hidden, forwards, regather);
    add.sum_out(name + ".self_attn.out_proj", hidden, forwards);
    add.enter(name + ".fc1", hidden, forwards, regather);
    add.sum_out(name + ".fc2", hidden, forwards);
    add.shared_parameters(name, 2 * norm);
  }
  add.shared_parameters("model.decoder", (config.max_position_embeddings() + 2) * hidden +
                                             (config.has_final_layer_norm() ? norm : 0) +
                                             (config.has_projections() ? 2 * hidden * sizes.embedding : 0));
  add.head(sizes.embedding);
  add.loss();
}

}  // namespace optp

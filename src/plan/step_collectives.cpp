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
  void sum_out(const std::string& name, int64_t width, int64_t forwards, bool backward) {
    if (sizes_.sliced()) {
      reduce_scatter(name + " forward", width, forwards);
      if (backward) all_gather(name + " backward", width, 1);
    } else {
      all_reduce(name + " forward", sizes_.tokens * width, forwards);
    }
  }

  // copy_to, or gathered_products: a whole activation enters column-parallel layers.
  void enter(const std::string& name, int64_t width, int64_t forwards, bool regather, bool backward) {
    if (sizes_.sliced()) {
      all_gather(name + " forward", width, forwards);
      if (regather) all_gather(name + " regather", width, 1);
      if (backward) reduce_scatter(name + " backward", width, 1);
    } else if (backward) {
      all_reduce(name + " backward", sizes_.tokens * width, 1);
    }
  }

  // The gradients of parameters that every rank applies to its own tokens.
  void shared_parameters(const std::string& name, const std::vector<at::Tensor>& parameters) {
    int64_t elements = 0;
    for (const at::Tensor& parameter : parameters) elements += trained(parameter) ? parameter.numel() : 0;
    if (sizes_.sliced() && elements > 0) all_reduce(name + " parameters", elements, 1);
  }

  void head(int64_t width, bool backward) {
    if (sizes_.sliced()) {
      all_gather("lm_head input", width, 1);
      if (backward) reduce_scatter("lm_head backward", width, 1);
    } else if (backward) {
      all_reduce("lm_head backward", sizes_.tokens * width, 1);
    }
  }

  // Three numbers a token, a call for each chunk of them.
  void loss() {
    const int64_t number = std::max<int64_t>(sizes_.element, sizeof(float));
    add("loss forward", "all_gather", (sizes_.tokens + kLossChunk - 1) / kLossChunk, 3 * sizes_.tokens * number);
  }

 private:
  void all_reduce(const std::string& site, int64_t elements, int64_t calls) {
    add(site, "all_reduce", calls, calls * elements * sizes_.element);
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

void add_model_collectives(std::vector<PlannedCollective>& all, OptForCausalLMImpl& model, const LocalSizes& sizes,
                           bool activation_checkpointing, int64_t times) {
  if (sizes.tp == 1) return;
  ModelCollectives add(all, sizes, times);
  OptDecoderImpl& decoder = *model.decoder;
  const bool before = model.config().do_layer_norm_before();
  const auto weight_of = [](const auto& module) { return module ? module->weight : at::Tensor(); };
  add.sum_out("model.decoder.embed_tokens", sizes.embedding, 1, trained(decoder.embed_tokens->weight));
  bool wanted = embeddings_trained(model);  // a gradient of the residual stream
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string name = "model.decoder.layers." + std::to_string(i);
    OptDecoderLayerImpl& layer = *decoder.layers->ptr<OptDecoderLayerImpl>(i);
    OptAttentionImpl& attention = *layer.self_attn;
    // A checkpointed layer runs forward twice; what it gathered the second time it keeps.
    const int64_t forwards = activation_checkpointing && (wanted || trained(layer)) ? 2 : 1;
    const auto enter = [&](const std::string& site, const torch::nn::LayerNorm& norm, bool weights) {
      if (before) wanted = wanted || trained(*norm);
      add.enter(name + site, sizes.hidden, forwards, weights && !activation_checkpointing, wanted);
    };
    const auto sum_out = [&](const std::string& site, const torch::nn::LayerNorm& norm) {
      add.sum_out(name + site, sizes.hidden, forwards, wanted);
      if (!before) wanted = wanted || trained(*norm);
    };
    enter(".self_attn", layer.self_attn_layer_norm,
          trained(attention.q_proj->weight) || trained(attention.k_proj->weight) || trained(attention.v_proj->weight));
    wanted = wanted || trained(attention);
    sum_out(".self_attn.out_proj", layer.self_attn_layer_norm);
    enter(".fc1", layer.final_layer_norm, trained(layer.fc1->weight));
    wanted = wanted || trained(*layer.fc1) || trained(*layer.fc2);
    sum_out(".fc2", layer.final_layer_norm);
    add.shared_parameters(name, {layer.self_attn_layer_norm->weight, layer.self_attn_layer_norm->bias,
                                 layer.final_layer_norm->weight, layer.final_layer_norm->bias});
  }
  const at::Tensor norm_bias = decoder.final_layer_norm ? decoder.final_layer_norm->bias : at::Tensor();
  add.shared_parameters("model.decoder", {decoder.embed_positions->weight, weight_of(decoder.final_layer_norm),
                                          norm_bias, weight_of(decoder.project_in), weight_of(decoder.project_out)});
  for (const at::Tensor& parameter : {weight_of(decoder.final_layer_norm), norm_bias, weight_of(decoder.project_out)}) {
    wanted = wanted || trained(parameter);
  }
  add.head(sizes.embedding, wanted);
  add.loss();
}

}  // namespace optp

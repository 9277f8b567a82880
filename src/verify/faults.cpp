#include "src/verify/faults.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace optp {
namespace {

constexpr const char* kDroppedForward = "dropped-forward-all-reduce";
constexpr const char* kDroppedBackward = "dropped-backward-all-reduce";
constexpr const char* kBiasEverywhere = "bias-on-every-rank";
constexpr const char* kExchangedShards = "exchanged-shards";
constexpr const char* kScaledGradient = "scaled-gradient";
constexpr const char* kDriftingReplica = "drifting-replica";
constexpr const char* kShiftedVocabulary = "shifted-vocabulary";
constexpr const char* kWholeParameter = "whole-parameter-kept";

OptDecoderLayerImpl& decoder_layer(OptForCausalLM& model, int64_t layer) {
  return *model->decoder->layers->ptr<OptDecoderLayerImpl>(layer);
}

// The collectives of the tensor group, with what goes wrong in them.
CollectiveHook collective_fault(const std::string& fault, const std::string& path, OptDecoderLayerImpl& layer,
                                int64_t rank) {
  if (fault == kDroppedForward) {
    return [site = path + ".fc2 forward"](const Collective& call) { return call.site != site; };
  }
  if (fault == kDroppedBackward) {
    return [site = path + ".fc1 backward"](const Collective& call) { return call.site != site; };
  }
  if (fault == kBiasEverywhere) {
    return [site = path + ".fc2 forward", bias = layer.fc2->bias, rank](const Collective& call) {
      // The layer adds its bias once after the sum; here every other rank has put it into its part already. Another
      // model on the same group, of another width, is left alone.
      const bool meant = call.site == site && call.buffer.size(-1) == bias.size(0);
      if (meant && rank != 0) call.buffer.add_(bias.detach());
      return true;
    };
  }
  return {};
}

}  // namespace

const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = {
      {kDroppedForward, "the all-reduce after fc2 is left out in the forward pass"},
      {kDroppedBackward, "the all-reduce of fc1's input gradient is left out in the backward pass"},
      {kBiasEverywhere, "the bias of the row-parallel fc2 is added on every rank instead of once"},
      {kExchangedShards, "ranks 0 and 1 hold each other's rows of fc1"},
      {kScaledGradient, "the gradient of q_proj is multiplied by the number of ranks"},
      {kDriftingReplica, "the last rank's copy of the position table gets a gradient of its own"},
      {kShiftedVocabulary, "the last rank's range of the vocabulary is shifted by one word"},
      {kWholeParameter, "every rank keeps the memory of the whole fc1 weight"},
  };
  return all;
}

void install_fault(const std::string& fault, int64_t layer, OptForCausalLM& model) {
  const auto& all = faults();
  TORCH_CHECK_VALUE(std::any_of(all.begin(), all.end(), [&](const Fault& known) { return known.name == fault; }), "\"",
                    fault, "\" is no fault; `optp verify --list-faults` prints them.");
  TORCH_CHECK_VALUE(layer >= 0 && layer < model->config().num_hidden_layers(), "the model has no layer ", layer,
                    "; use 0 to ", model->config().num_hidden_layers() - 1, ".");
  const ProcessGroup& group = model->mesh().tensor();
  TORCH_CHECK_VALUE(group.size() > 1, "a fault between ranks needs two of them; use --tp 2 or more.");
  OptDecoderLayerImpl& target = decoder_layer(model, layer);
  TORCH_CHECK_VALUE(fault != kBiasEverywhere || target.fc2->bias.defined(),
                    "the model has no biases, so none can be added on every rank; choose another fault.");

  ProcessGroup shared = group;  // a copy that shares the connection and its hook
  shared.set_hook(collective_fault(fault, "model.decoder.layers." + std::to_string(layer), target, group.rank()));
  const bool last = group.rank() == group.size() - 1;
  if (fault == kScaledGradient) {
    target.self_attn->q_proj->weight.register_hook(
        [degree = group.size()](const at::Tensor& gradient) { return gradient * degree; });
  } else if (fault == kDriftingReplica && last) {
    // So little that only a comparison bit for bit can see it in the first step.
    model->decoder->embed_positions->weight.register_hook(
        [](const at::Tensor& gradient) { return gradient * (1 + 1e-6); });
  } else if (fault == kWholeParameter) {
    at::Tensor& weight = target.fc1->weight;
    const at::Tensor whole = at::empty({target.fc1->options.out_features(), weight.size(1)}, weight.options());
    weight.set_data(whole.narrow(0, target.fc1->layout().range(group.rank()).start, weight.size(0)));
  }
}

void damage_weights(const std::string& fault, int64_t layer, OptForCausalLM& model) {
  at::NoGradGuard no_grad;
  const ProcessGroup& group = model->mesh().tensor();
  if (fault == kExchangedShards) {
    at::Tensor& weight = decoder_layer(model, layer).fc1->weight;
    const ShardLayout& layout = decoder_layer(model, layer).fc1->layout();
    const at::Tensor whole = group.all_gather(weight, 0, layout, "fault");
    const int64_t rows = std::min(layout.range(0).size, layout.range(1).size);
    if (group.rank() < 2) {
      weight.narrow(0, 0, rows).copy_(whole.narrow(0, layout.range(1 - group.rank()).start, rows));
    }
  } else if (fault == kShiftedVocabulary && group.rank() == group.size() - 1) {
    at::Tensor& weight = model->decoder->embed_tokens->weight;
    weight.copy_(weight.roll(1, 0));
  }
}

}  // namespace optp

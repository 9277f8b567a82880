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
constexpr const char* kNotReduced = "gradient-not-reduced";
constexpr const char* kNormNotSummed = "layer-norm-not-summed";
constexpr const char* kLostMicroBatch = "lost-micro-batch";
constexpr const char* kCountedTwice = "replica-counted-twice";
constexpr const char* kNotFreed = "memory-not-freed";

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
  if (fault == kNormNotSummed) {
    return [site = path + " parameters"](const Collective& call) { return call.site != site; };
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
      {kNotReduced, "the copies of the model do not add up their gradients"},
      {kNormNotSummed, "under sequence parallelism each rank keeps the layer norms' gradient of its own tokens"},
      {kLostMicroBatch, "the gradients of all micro-batches but the last are left out"},
      {kCountedTwice, "the norm of the gradient counts replicated parameters once for each rank"},
      {kNotFreed, "two training steps each leave 128 MiB behind"},
  };
  return all;
}

bool needs_copies(const std::string& fault) { return fault == kNotReduced; }
bool needs_sequence_parallel(const std::string& fault) { return fault == kNormNotSummed; }
bool loses_micro_batch(const std::string& fault) { return fault == kLostMicroBatch; }

void install_fault(const std::string& fault, int64_t layer, bool sequence_parallel, OptForCausalLM& model) {
  const auto& all = faults();
  TORCH_CHECK_VALUE(std::any_of(all.begin(), all.end(), [&](const Fault& known) { return known.name == fault; }), "\"",
                    fault, "\" is no fault; `optp verify --list-faults` prints them.");
  TORCH_CHECK_VALUE(layer >= 0 && layer < model->config().num_hidden_layers(), "the model has no layer ", layer,
                    "; use 0 to ", model->config().num_hidden_layers() - 1, ".");
  const ProcessGroup& group = model->mesh().tensor();
  const bool between_copies = needs_copies(fault);
  TORCH_CHECK_VALUE(between_copies || loses_micro_batch(fault) || group.size() > 1,
                    "a fault between ranks needs two of them; use --tp 2 or more.");
  TORCH_CHECK_VALUE(!between_copies || model->mesh().data().size() > 1,
                    "a fault between copies of the model needs two of them; use --dp 2 or more.");
  OptDecoderLayerImpl& target = decoder_layer(model, layer);
  TORCH_CHECK_VALUE(fault != kBiasEverywhere || target.fc2->bias.defined(),
                    "the model has no biases, so none can be added on every rank; choose another fault.");

  TORCH_CHECK_VALUE(fault != kNormNotSummed || (sequence_parallel && model->config().layer_norm_elementwise_affine()),
                    "the gradients of layer norms are summed only with --sequence-parallel, in a model whose layer "
                    "norms have weights; choose another fault.");

  if (between_copies) {
    ProcessGroup copies = model->mesh().data();
    copies.set_hook([](const Collective& call) { return call.site != "gradients"; });
    return;
  }
  if (fault == kNotFreed) {
    ProcessGroup world = model->mesh().world();
    world.set_hook([left = std::vector<at::Tensor>()](const Collective& call) mutable {
      if (call.site == "gradient norm" && left.size() < 2) left.push_back(at::ones({int64_t{1} << 27}, at::kByte));
      return true;
    });
    return;
  }
  ProcessGroup shared = group;  // a copy that shares the connection and its hook
  shared.set_hook(collective_fault(fault, "model.decoder.layers." + std::to_string(layer), target, group.rank()));
  const bool last = group.rank() == group.size() - 1;
  if (fault == kScaledGradient) {
    target.self_attn->q_proj->weight.register_hook(
        [degree = group.size()](const at::Tensor& gradient) { return gradient * degree; });
  } else if (fault == kDriftingReplica && last) {
    // So little that only a comparison bit for bit can see it in the first step.
    const double factor = model->dtype() == at::kBFloat16 ? 1 + 1.0 / 128 : 1 + 1e-6;
    model->decoder->embed_positions->weight.register_hook(
        [factor](const at::Tensor& gradient) { return gradient * factor; });
  } else if (fault == kWholeParameter) {
    at::Tensor& weight = target.fc1->weight;
    const at::Tensor whole = at::empty({target.fc1->options.out_features(), weight.size(1)}, weight.options());
    weight.set_data(whole.narrow(0, target.fc1->layout().range(group.rank()).start, weight.size(0)));
  }
}

void install_gradient_fault(const std::string& fault, OptForCausalLM& model, const Gradients& gradients) {
  if (fault != kCountedTwice) return;
  // The first tensor-parallel rank counts what all hold; here the others of the first copy do so too.
  const bool wrongly = model->mesh().tensor().rank() != 0 && model->mesh().data().rank() == 0;
  ProcessGroup world = model->mesh().world();
  world.set_hook([&gradients, wrongly](const Collective& call) {
    if (call.site != "gradient norm" || !wrongly) return true;
    for (const TrainedParameter& entry : gradients.parameters()) {
      if (entry.shard.replicated()) call.buffer[0].add_(entry.gradient.square().sum());
    }
    return true;
  });
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

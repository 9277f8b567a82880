#include "modules/opt_decoder_layer.h"

#include <ATen/ATen.h>

#include "parallel/dropout.h"

namespace optp {

torch::nn::LayerNorm opt_layer_norm(const OptConfig& config, const at::TensorOptions& tensor_options) {
  torch::nn::LayerNorm norm(torch::nn::LayerNormOptions({config.hidden_size()})
                                .eps(1e-5)
                                .elementwise_affine(config.layer_norm_elementwise_affine()));
  norm->to(c10::typeMetaToScalarType(tensor_options.dtype()));
  return norm;
}

OptDecoderLayerImpl::OptDecoderLayerImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                                         const at::TensorOptions& tensor_options)
    : config_(config), group_(group), name_(name), tensor_options_(tensor_options) {
  OptDecoderLayerImpl::reset();
}

void OptDecoderLayerImpl::reset() {
  const int64_t hidden = config_.hidden_size();
  self_attn = register_module("self_attn", OptAttention(config_, group_, name_ + ".self_attn", tensor_options_));
  self_attn_layer_norm = register_module("self_attn_layer_norm", opt_layer_norm(config_, tensor_options_));
  fc1 = register_module("fc1", ColumnParallelLinear(ColumnParallelLinearOptions(hidden, config_.ffn_dim())
                                                        .bias(config_.enable_bias())
                                                        .name(name_ + ".fc1")
                                                        .tensor_options(tensor_options_),
                                                    group_));
  fc2 = register_module("fc2", RowParallelLinear(RowParallelLinearOptions(config_.ffn_dim(), hidden)
                                                     .bias(config_.enable_bias())
                                                     .name(name_ + ".fc2")
                                                     .tensor_options(tensor_options_),
                                                 group_));
  final_layer_norm = register_module("final_layer_norm", opt_layer_norm(config_, tensor_options_));
}

at::Tensor OptDecoderLayerImpl::forward(const at::Tensor& hidden, const AttentionMask& mask,
                                        const std::optional<DropoutSource>& dropout) {
  const bool before = config_.do_layer_norm_before();
  const auto dropped = [&](const at::Tensor& output, const char* site) {
    return dropout ? keyed_dropout(output, config_.dropout(), dropout->key.with(site), dropout->first_sequence)
                   : output;
  };

  const at::Tensor attention_input = before ? self_attn_layer_norm(hidden) : hidden;
  at::Tensor x = hidden + dropped(self_attn(attention_input, mask, dropout), "self_attn");
  if (!before) x = self_attn_layer_norm(x);

  const at::Tensor inner = fc1(before ? final_layer_norm(x) : x);  // [B, T, local ffn_dim]
  const at::Tensor active = config_.activation_function() == "gelu" ? at::gelu(inner) : at::relu(inner);
  x = x + dropped(fc2(active), "fc2");
  return before ? x : final_layer_norm(x);
}

}  // namespace optp

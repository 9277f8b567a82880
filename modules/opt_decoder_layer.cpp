#include "modules/opt_decoder_layer.h"

#include <ATen/ATen.h>

#include <vector>

#include "modules/placed.h"
#include "parallel/dropout.h"
#include "parallel/mappings.h"

namespace optp {

namespace {
constexpr double kNormEpsilon = 1e-5;
}

torch::nn::LayerNorm opt_layer_norm(const OptConfig& config, const at::TensorOptions& tensor_options) {
  return placed<torch::nn::LayerNormImpl>(torch::nn::LayerNormOptions({config.hidden_size()})
                                              .eps(kNormEpsilon)
                                              .elementwise_affine(config.layer_norm_elementwise_affine()),
                                          tensor_options);
}

at::Tensor opt_layer_norm(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias) {
  return at::layer_norm(hidden, hidden.size(-1), weight, bias, kNormEpsilon);
}

OptDecoderLayerImpl::OptDecoderLayerImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                                         const at::TensorOptions& tensor_options)
    : config_(config),
      group_(group),
      name_(name),
      tensor_options_(tensor_options),
      parameters_site_(name + " parameters") {
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

at::Tensor OptDecoderLayerImpl::forward(const at::Tensor& hidden, const OptPass& pass,
                                        const std::optional<DropoutSource>& dropout) {
  const bool before = config_.do_layer_norm_before();
  std::vector<at::Tensor> norms{self_attn_layer_norm->weight, self_attn_layer_norm->bias, final_layer_norm->weight,
                                final_layer_norm->bias};
  if (pass.slices) norms = copy_to(norms, group_, parameters_site_);
  const auto attention_norm = [&](const at::Tensor& x) { return opt_layer_norm(x, norms[0], norms[1]); };
  const auto feed_forward_norm = [&](const at::Tensor& x) { return opt_layer_norm(x, norms[2], norms[3]); };
  const auto dropped = [&](const at::Tensor& output, const char* site) {
    if (!dropout) return output;
    return keyed_token_dropout(output, config_.dropout(), dropout->key.with(site),
                               {dropout->first_sequence, pass.tokens, pass.first_token});
  };

  const at::Tensor attended = self_attn(before ? attention_norm(hidden) : hidden, pass, dropout);
  at::Tensor x = hidden + dropped(attended, "self_attn");
  if (!before) x = attention_norm(x);

  const at::Tensor input = before ? feed_forward_norm(x) : x;
  const at::Tensor inner = fc1(input, pass.slices);  // [B T, local ffn_dim]
  const at::Tensor active = config_.activation_function() == "gelu" ? at::gelu(inner) : at::relu(inner);
  x = x + dropped(fc2(active, pass.slices), "fc2");
  return before ? x : feed_forward_norm(x);
}

}  // namespace optp

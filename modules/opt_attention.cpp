#include "modules/opt_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>

#include "modules/explicit_attention.h"
#include "modules/kv_cache.h"
#include "parallel/mappings.h"

namespace optp {

OptAttentionImpl::OptAttentionImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                                   const at::TensorOptions& tensor_options)
    : config_(config),
      group_(group),
      name_(name),
      tensor_options_(tensor_options),
      sites_{name + " forward", name + " regather", name + " backward"} {
  OptAttentionImpl::reset();
}

void OptAttentionImpl::reset() {
  const int64_t hidden = config_.hidden_size();
  const auto projection = [&](const char* name) {
    // The three share one input, so the layer adds its gradient over the ranks once for all of them.
    return ColumnParallelLinear(ColumnParallelLinearOptions(hidden, hidden)
                                    .bias(config_.enable_bias())
                                    .copy_input(false)
                                    .block(config_.head_dim())
                                    .name(name_ + "." + name)
                                    .tensor_options(tensor_options_),
                                group_);
  };
  k_proj = register_module("k_proj", projection("k_proj"));
  v_proj = register_module("v_proj", projection("v_proj"));
  q_proj = register_module("q_proj", projection("q_proj"));
  out_proj = register_module("out_proj", RowParallelLinear(RowParallelLinearOptions(hidden, hidden)
                                                               .bias(config_.enable_bias())
                                                               .block(config_.head_dim())
                                                               .name(name_ + ".out_proj")
                                                               .tensor_options(tensor_options_),
                                                           group_));
}

std::vector<at::Tensor> OptAttentionImpl::project(const at::Tensor& hidden, const OptPass& pass) {
  if (pass.slices) {
    return gathered_products(
        hidden, {{q_proj->weight, q_proj->bias}, {k_proj->weight, k_proj->bias}, {v_proj->weight, v_proj->bias}},
        *pass.slices, group_, sites_);
  }
  const at::Tensor input = copy_to(hidden, group_, sites_.backward);
  return {q_proj(input), k_proj(input), v_proj(input)};
}

at::Tensor OptAttentionImpl::forward(const at::Tensor& hidden, const OptPass& pass,
                                     const std::optional<DropoutSource>& dropout) {
  const double scaling = 1.0 / std::sqrt(static_cast<double>(config_.head_dim()));
  const auto heads = [&](const at::Tensor& projected) {
    return projected.view({pass.batch, pass.tokens, -1, config_.head_dim()}).transpose(1, 2);  // [B, H, T, K]
  };
  std::vector<at::Tensor> projected = project(hidden, pass);
  const at::Tensor query = heads(projected[0].mul_(scaling));
  at::Tensor key = heads(projected[1]);
  at::Tensor value = heads(projected[2]);
  if (pass.cache) std::tie(key, value) = pass.cache->append(pass.layer, key, value);  // [B, H, L, K]

  // The fused kernel cannot put a keyed mask on the probabilities, and its backward recomputes them from a rounded
  // logarithm that gives a query without keys probabilities of 1 in place of 1 / T.
  std::optional<AttentionDropout> drops;
  if (dropout && config_.attention_dropout() > 0) {
    const int64_t first_head = out_proj->layout().range(group_.rank()).start / config_.head_dim();
    drops = AttentionDropout{config_.attention_dropout(), dropout->key.with("attention"), dropout->first_sequence,
                             first_head};
  }
  const at::Tensor& additive = pass.mask.additive;
  at::Tensor attended;  // [B, H, T, K]
  if (drops || (pass.mask.has_empty_rows && pass.differentiable)) {
    attended = explicit_attention(query, key, value, pass.mask, drops);
  } else {
    attended = at::scaled_dot_product_attention(
        query, key, value, additive.defined() ? std::optional(additive) : std::nullopt,
        /*dropout_p=*/0.0, /*is_causal=*/!additive.defined() && pass.tokens > 1, /*scale=*/1.0);
  }
  const at::Tensor joined = attended.transpose(1, 2).reshape({pass.batch * pass.tokens, -1});  // [B T, H K]
  return out_proj(joined, pass.slices);
}

}  // namespace optp

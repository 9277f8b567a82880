#include "modules/opt_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "parallel/dropout.h"
#include "parallel/mappings.h"

namespace optp {

OptAttentionImpl::OptAttentionImpl(const OptConfig& config, const ProcessGroup& group, const std::string& name,
                                   const at::TensorOptions& tensor_options)
    : config_(config), group_(group), name_(name), tensor_options_(tensor_options), backward_site_(name + " backward") {
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

at::Tensor OptAttentionImpl::forward(const at::Tensor& hidden, const AttentionMask& mask,
                                     const std::optional<DropoutSource>& dropout) {
  const at::Tensor input = copy_to(hidden, group_, backward_site_);
  const double scaling = 1.0 / std::sqrt(static_cast<double>(config_.head_dim()));
  const auto heads = [&](const at::Tensor& projected) {
    return projected.view({projected.size(0), projected.size(1), -1, config_.head_dim()}).transpose(1, 2);  // [B,H,T,K]
  };
  const at::Tensor query = heads(q_proj(input) * scaling);
  const at::Tensor key = heads(k_proj(input));
  const at::Tensor value = heads(v_proj(input));

  // The fused kernel cannot put a keyed mask on the probabilities, and its backward recomputes them from a rounded
  // logarithm that gives a query without keys probabilities of 1 in place of 1 / T.
  const bool drops = dropout && config_.attention_dropout() > 0;
  at::Tensor attended;
  if (drops || (mask.has_empty_rows && query.requires_grad())) {
    attended = attend_explicitly(query, key, value, mask.additive, drops ? dropout : std::nullopt);
  } else {
    const bool causal_alone = !mask.additive.defined();
    attended =
        at::scaled_dot_product_attention(query, key, value, causal_alone ? std::nullopt : std::optional(mask.additive),
                                         /*dropout_p=*/0.0, /*is_causal=*/causal_alone, /*scale=*/1.0);
  }
  return out_proj(attended.transpose(1, 2).flatten(2));  // [B, T, H K] -> [B, T, D]
}

at::Tensor OptAttentionImpl::attend_explicitly(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                               const at::Tensor& mask,
                                               const std::optional<DropoutSource>& dropout) const {
  at::Tensor scores = query.matmul(key.transpose(-1, -2));  // [B, H, T, T]
  if (mask.defined()) {
    // Filled, not added: a score that cannot matter gets no gradient, even where no key is left and all are filled
    // alike.
    scores = at::where(mask.eq(0), scores, mask);
  } else {
    const int64_t tokens = scores.size(-1);
    const at::Tensor future = at::ones({tokens, tokens}, at::kBool).triu(/*diagonal=*/1);
    scores = scores.masked_fill(future, -std::numeric_limits<double>::infinity());
  }
  const auto type = scores.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor probabilities = scores.softmax(-1, type).to(query.scalar_type());
  if (dropout) {
    const int64_t first_head = out_proj->layout().range(group_.rank()).start / config_.head_dim();
    probabilities = keyed_head_dropout(probabilities, config_.attention_dropout(), dropout->key.with("attention"),
                                       dropout->first_sequence, first_head);
  }
  return probabilities.matmul(value);
}

}  // namespace optp

#include "modules/opt_init.h"

#include <ATen/ATen.h>

#include <cmath>

#include "parallel/random.h"

namespace optp {

void initialize(const std::vector<NamedShard>& parameters, const OptConfig& config, uint64_t seed) {
  at::NoGradGuard no_grad;
  const RandomKey key = RandomKey(seed).with("init");
  const double output_std = config.init_std() / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers()));
  for (const NamedShard& entry : parameters) {
    at::Tensor tensor = entry.tensor;
    if (entry.name.ends_with(".bias")) {
      tensor.zero_();
    } else if (entry.name.ends_with("layer_norm.weight")) {
      tensor.fill_(1);
    } else {
      const bool residual_output = entry.name.ends_with(".out_proj.weight") || entry.name.ends_with(".fc2.weight");
      fill_normal(tensor, entry.shard, key.with(entry.name), residual_output ? output_std : config.init_std());
    }
    if (entry.name.ends_with("embed_tokens.weight") && entry.shard.range().contains(config.pad_token_id())) {
      tensor[config.pad_token_id() - entry.shard.range().start].zero_();
    }
  }
}

}  // namespace optp

// Fresh weights, the same at every degree of parallelism.
#pragma once

#include <vector>

#include "modules/opt_config.h"
#include "parallel/parameter_shard.h"

namespace optp {

/// Fills the parameters of an OPT model (sharded or whole: `named_shards(*model)`) as OPT was initialised (Zhang et
/// al., 2022, section 2.2): weights N(0, init_std), those of out_proj and fc2 divided by sqrt(2 num_hidden_layers),
/// biases 0, layer norms 1 and 0, the padding token's embedding 0. Each weight has its own stream, keyed by (seed,
/// name).
void initialize(const std::vector<NamedShard>& parameters, const OptConfig& config, uint64_t seed);

}  // namespace optp

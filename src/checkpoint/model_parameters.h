// The parameters of a model that nobody has built.
#pragma once

#include <cstdint>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/parameter_shard.h"

namespace optp {

/// Every parameter of an OPT model as tensor-parallel rank `rank` of `tp` holds it, in the order of the model (that of
/// OPTForCausalLM's state_dict). The tensors have no memory.
std::vector<NamedShard> model_parameters(const OptConfig& config, int64_t tp = 1, int64_t rank = 0);

}  // namespace optp

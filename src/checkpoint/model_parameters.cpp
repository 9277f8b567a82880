#include "src/checkpoint/model_parameters.h"

#include "modules/opt_for_causal_lm.h"

namespace optp {

std::vector<NamedShard> model_parameters(const OptConfig& config, int64_t tp, int64_t rank) {
  const OptForCausalLM model(config, Mesh::unconnected(tp, rank), at::TensorOptions(at::kFloat).device(at::kMeta));
  return named_shards(*model);
}

}  // namespace optp

#include "src/inference/inference_model.h"

#include <ATen/ATen.h>

#include <map>
#include <string>

#include "parallel/stored_weight.h"

namespace optp {

OptForCausalLM load_for_inference(const ModelSource& source, const Mesh& mesh, uint64_t seed, at::ScalarType dtype,
                                  at::ScalarType weights) {
  // Memory that nobody has written to is not resident yet: the float32 matrices exist one at a time.
  OptForCausalLM model(source.config, mesh, dtype);
  const auto opened = source.open(seed, mesh);
  const std::vector<NamedShard> parameters = named_shards(*model);
  if (weights == dtype) {
    opened->load(parameters);
    return model;
  }
  std::map<std::string, NarrowableLayer*> layers;  // by the name of the weight
  for (const auto& module : model->named_modules()) {
    if (auto* layer = dynamic_cast<NarrowableLayer*>(module.value().get())) layers[module.key() + ".weight"] = layer;
  }
  opened->check(parameters);
  for (const NamedShard& parameter : parameters) {
    opened->read(parameter);
    const auto layer = layers.find(parameter.name);
    if (layer != layers.end()) layer->second->narrow_weight(weights);
  }
  return model;
}

}  // namespace optp

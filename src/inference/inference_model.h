// A model that is loaded to be used, not trained.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "modules/opt_for_causal_lm.h"
#include "parallel/mesh.h"
#include "src/checkpoint/model_source.h"

namespace optp {

/// Builds the model that `source` names on this rank of `mesh`, in the arithmetic of `dtype`, and fills it.
///
/// `weights`: what the matrices of the layers, the embedding table and the head are kept as. kBFloat16 or kChar (int8,
/// a scale for each output channel; parallel/stored_weight.h) need float32 arithmetic; with `dtype` itself nothing is
/// converted. Biases, layer norms, positions and the projections of 350m keep `dtype`. Each matrix is converted as soon
/// as it is read, so that no more than one of them exists in float32 at any time. Collective over the mesh.
OptForCausalLM load_for_inference(const ModelSource& source, const Mesh& mesh, uint64_t seed, at::ScalarType dtype,
                                  at::ScalarType weights);

}  // namespace optp

// What one rank sends in a training step, by call site, as ProcessGroup counts it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/plan/training_shape.h"

namespace optp {

struct PlannedCollective {
  std::string site;
  std::string operation;  ///< "all_reduce", "all_gather" or "reduce_scatter"
  int64_t calls = 0;
  int64_t bytes = 0;  ///< of all calls, of the tensors that this rank hands in

  friend bool operator==(const PlannedCollective&, const PlannedCollective&) = default;
};

/// Adds what the tensor-parallel group does in forward and backward of `times` micro-batches: the mappings of the
/// layers (parallel/mappings.h), in the order of the model, as far as a trained parameter asks for them. Nothing in a
/// group of one. A site that is there already grows.
void add_model_collectives(std::vector<PlannedCollective>& all, OptForCausalLMImpl& model, const LocalSizes& sizes,
                           bool activation_checkpointing, int64_t times);

/// Adds `calls` calls with `bytes` bytes together to a site.
void add_collective(std::vector<PlannedCollective>& all, const std::string& site, const std::string& operation,
                    int64_t calls, int64_t bytes);

}  // namespace optp

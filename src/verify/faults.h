// Faults that `--inject` puts into the sharded model: a verification that does not notice one proves nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "parallel/gradients.h"

namespace optp {

struct Fault {
  std::string name;         ///< as `--inject` takes it
  std::string description;  ///< what goes wrong, one line
};

const std::vector<Fault>& faults();

/// Whether the fault is one in data parallelism, in sequence parallelism or between micro-batches, so that the run has
/// to use these.
bool needs_copies(const std::string& fault);
bool needs_sequence_parallel(const std::string& fault);
bool loses_micro_batch(const std::string& fault);

/// Arranges for `fault` to happen in decoder layer `layer` (or in the embedding, where it has no layer) whenever the
/// model computes. Call it once, on every rank. Throws c10::ValueError for an unknown fault, a layer that the model
/// does not have, or a single rank, on which nothing can go wrong between ranks.
void install_fault(const std::string& fault, int64_t layer, bool sequence_parallel, OptForCausalLM& model);

/// The part of a fault that lies in how gradients are counted. Call it once, on every rank; `gradients` must outlive
/// the model's use.
void install_gradient_fault(const std::string& fault, OptForCausalLM& model, const Gradients& gradients);

/// The part of a fault that lies in the weights. Call it after every loading of weights, on every rank; it
/// communicates.
void damage_weights(const std::string& fault, int64_t layer, OptForCausalLM& model);

}  // namespace optp

// Sequence parallelism: between the tensor-parallel layers each rank holds a slice of the tokens instead of all of them
// (Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, section 4.2).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "parallel/process_group.h"
#include "parallel/shard.h"

namespace optp {

/// How the rows of an activation [rows, ..] (the tokens of all sequences) are dealt out to the ranks of a group.
struct TokenSlices {
  ShardLayout layout;
  /// Keep the slice alone for backward and gather it once more there, as the paper does. Turn it off where what is kept
  /// does not live long: inside checkpointed activations.
  bool regather = true;
};

/// A linear layer's share of one product.
struct LinearOperands {
  at::Tensor weight;  ///< [N, K]
  at::Tensor bias;    ///< [N] or undefined
};

/// Names of the collectives.
struct GatherSites {
  std::string forward;   ///< all_gather of the slices
  std::string regather;  ///< the same in backward, if slices.regather and a weight needs a gradient
  std::string backward;  ///< reduce_scatter of the input's gradient, if it needs one
};

/// Products of all tokens with several weights, from this rank's slice: x [slice, K] -> x_all W^T + b for each of the
/// operands, [rows, N] each. One all_gather in forward serves all of them, and one reduce_scatter in backward.
std::vector<at::Tensor> gathered_products(const at::Tensor& slice, const std::vector<LinearOperands>& operands,
                                          const TokenSlices& slices, const ProcessGroup& group,
                                          const GatherSites& sites);

}  // namespace optp

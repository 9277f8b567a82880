// Small OPT models and inputs for tests, with sizes that no degree from 2 to 4 divides evenly.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "modules/opt_config.h"

namespace optp::testing {

/// 2 layers, hidden 24, 4 heads of 6, ffn 29, vocabulary 61, 32 positions, no dropout.
OptConfig small_opt();

/// Fills every parameter with numbers that make mistakes visible: biases and layer norms too are far from 0 and 1.
void randomize(torch::nn::Module& model, uint64_t seed);

/// [batch, tokens] int64 ids of the whole vocabulary.
at::Tensor random_ids(const OptConfig& config, int64_t batch, int64_t tokens, uint64_t seed);

}  // namespace optp::testing

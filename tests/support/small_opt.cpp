#include "tests/support/small_opt.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace optp::testing {

OptConfig small_opt() {
  return OptConfig()
      .num_hidden_layers(2)
      .hidden_size(24)
      .num_attention_heads(4)
      .ffn_dim(29)
      .vocab_size(61)
      .max_position_embeddings(32)
      .dropout(0);
}

void randomize(torch::nn::Module& model, uint64_t seed) {
  at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (auto& parameter : model.named_parameters()) {
    parameter.value().normal_(0, 0.2, generator);
    if (parameter.key().ends_with("norm.weight")) parameter.value().add_(1);
  }
}

at::Tensor random_ids(const OptConfig& config, int64_t batch, int64_t tokens, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randint(config.vocab_size(), {batch, tokens}, generator, at::kLong);
}

}  // namespace optp::testing

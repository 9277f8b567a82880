// OPT's learned positional embedding.
#pragma once

#include <c10/core/TensorOptions.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

namespace optp {

/// Positions count the real tokens of each sequence, so padding may stand on either side: a real token with n real
/// tokens before it reads row 2 + n of the table, padding reads row 1. As transformers computes it: cumsum(mask) * mask
/// - 1 + 2. Parameter: `weight` [num_positions + 2, D], whole on every rank, uninitialised memory until it is filled.
class OptLearnedPositionalEmbeddingImpl : public torch::nn::Cloneable<OptLearnedPositionalEmbeddingImpl> {
 public:
  OptLearnedPositionalEmbeddingImpl(int64_t num_positions, int64_t embedding_dim, at::TensorOptions tensor_options);

  void reset() override;

  /// The row of the table that each token reads: attention_mask [B, T] int64 of 0 and 1 -> [B, T] int64.
  static at::Tensor rows(const at::Tensor& attention_mask);

  at::Tensor weight;

 private:
  int64_t num_positions_;
  int64_t embedding_dim_;
  at::TensorOptions tensor_options_;
};

TORCH_MODULE(OptLearnedPositionalEmbedding);

}  // namespace optp

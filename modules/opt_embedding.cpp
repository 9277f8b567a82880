#include "modules/opt_embedding.h"

#include <ATen/ATen.h>

namespace optp {
namespace {
constexpr int64_t kOffset = 2;  // rows 0 and 1 belong to padding
}

OptLearnedPositionalEmbeddingImpl::OptLearnedPositionalEmbeddingImpl(int64_t num_positions, int64_t embedding_dim,
                                                                     at::TensorOptions tensor_options)
    : num_positions_(num_positions), embedding_dim_(embedding_dim), tensor_options_(tensor_options) {
  OptLearnedPositionalEmbeddingImpl::reset();
}

void OptLearnedPositionalEmbeddingImpl::reset() {
  weight = register_parameter("weight", at::empty({num_positions_ + kOffset, embedding_dim_}, tensor_options_));
}

at::Tensor OptLearnedPositionalEmbeddingImpl::rows(const at::Tensor& attention_mask) {
  return attention_mask.cumsum(1) * attention_mask - 1 + kOffset;
}

}  // namespace optp

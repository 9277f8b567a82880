// A small network of a user's own, whole and sharded. Its numbers are integers up to the layer norm, so that nothing
// rounds and every right program gives the very same.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <utility>

#include "parallel/column_parallel_linear.h"
#include "parallel/row_parallel_linear.h"
#include "parallel/vocab_parallel_embedding.h"
#include "tests/support/tensors.h"

namespace optp::testing {

/// embedding -> linear -> ReLU -> linear -> layer norm, whole: 11 words, 6 features, 7 hidden units.
struct WholeNetwork : torch::nn::Module {
  WholeNetwork() {
    embed = register_module("embed", torch::nn::Embedding(11, 6));
    fc1 = register_module("fc1", torch::nn::Linear(6, 7));
    fc2 = register_module("fc2", torch::nn::Linear(7, 6));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})));
    to(at::kDouble);
    const at::NoGradGuard no_grad;
    int64_t start = 0;
    for (const auto& parameter : parameters()) parameter.copy_(integers(parameter.sizes(), ++start));
  }
  at::Tensor before_norm(const at::Tensor& ids) { return fc2(fc1(embed(ids)).relu()); }

  torch::nn::Embedding embed{nullptr};
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
  torch::nn::LayerNorm norm{nullptr};
};

/// The same, sharded.
struct ShardedNetwork : torch::nn::Cloneable<ShardedNetwork> {
  explicit ShardedNetwork(ProcessGroup network_group) : group(std::move(network_group)) { reset(); }
  void reset() override {
    embed = register_module(
        "embed", VocabParallelEmbedding(VocabParallelEmbeddingOptions(11, 6).tensor_options(at::kDouble), group));
    fc1 = register_module("fc1",
                          ColumnParallelLinear(ColumnParallelLinearOptions(6, 7).tensor_options(at::kDouble), group));
    fc2 = register_module("fc2", RowParallelLinear(RowParallelLinearOptions(7, 6).tensor_options(at::kDouble), group));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})));
    norm->to(at::kDouble);
  }
  at::Tensor before_norm(const at::Tensor& ids) { return fc2(fc1(embed(ids)).relu()); }

  ProcessGroup group;
  VocabParallelEmbedding embed{nullptr};
  ColumnParallelLinear fc1{nullptr};
  RowParallelLinear fc2{nullptr};
  torch::nn::LayerNorm norm{nullptr};
};

/// [2, 11] ids of the embedding.
inline const at::Tensor& network_ids() {
  static const at::Tensor ids = at::arange(22, at::kLong).mul(3).remainder(11).view({2, 11});
  return ids;
}

}  // namespace optp::testing

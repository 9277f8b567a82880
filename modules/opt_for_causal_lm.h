// OPT with its language-model head, sharded over the tensor axis of a mesh.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "modules/opt_config.h"
#include "modules/opt_decoder.h"
#include "modules/opt_forward_options.h"
#include "modules/opt_reference.h"
#include "parallel/column_parallel_linear.h"
#include "parallel/mesh.h"

namespace optp {

struct OptOutput {
  at::Tensor logits;                      ///< [B, T, V]
  at::Tensor loss;                        ///< [], mean over the positions that count: loss_sum / loss_count
  at::Tensor loss_sum;                    ///< [], float32 (float64 for a float64 model); adds up over micro-batches
  int64_t loss_count = 0;                 ///< positions that count
  std::vector<at::Tensor> hidden_states;  ///< num_hidden_layers + 1 times [B, T, ..]
};

/// `OPTForCausalLM` with the same parameter names, each rank of `mesh.tensor()` holding its shards. All ranks call
/// forward with the same input. The weights are uninitialised memory until initialize() or a loader has filled them.
class OptForCausalLMImpl : public torch::nn::Cloneable<OptForCausalLMImpl> {
 public:
  /// Throws c10::ValueError when the configuration is invalid or has fewer heads than mesh.tensor() has ranks.
  OptForCausalLMImpl(const OptConfig& config, const Mesh& mesh, const at::TensorOptions& tensor_options = at::kFloat);

  void reset() override;

  /// input_ids [B, T] int64, T at most max_position_embeddings. The loss is computed when `labels` or `targets` (not
  /// both) are given. A loss without logits takes the head in chunks of kLossChunk tokens, so that the logits of the
  /// batch never exist: how a training step should ask for it.
  ///
  /// Collectives of the tensor group, besides those of OptDecoder: "lm_head backward" all_reduces the gradient of the
  /// decoder's output [B T, embedding_size], or with sequence parallelism "lm_head input" all_gathers the output and
  /// "lm_head backward" reduce_scatters the gradient; "lm_head forward" all_gathers the logits; "loss forward"
  /// exchanges 3 numbers a position (with logits: in 2 calls; without: in a call for each chunk).
  OptOutput forward(const at::Tensor& input_ids, const OptForwardOptions& options = {});

  const OptConfig& config() const { return config_; }
  const Mesh& mesh() const { return mesh_; }
  at::ScalarType dtype() const { return c10::typeMetaToScalarType(tensor_options_.dtype()); }

  OptDecoder decoder{nullptr};
  ColumnParallelLinear lm_head{nullptr};  // null when the head is the embedding table

 private:
  OptConfig config_;
  Mesh mesh_;
  at::TensorOptions tensor_options_;
};

TORCH_MODULE(OptForCausalLM);

/// Shards a model that exists whole on this rank. Every rank passes the same weights.
OptForCausalLM shard(const OptReference& reference, const Mesh& mesh);

}  // namespace optp

// OPT with its language-model head, sharded over the tensor axis of a mesh.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <vector>

#include "modules/opt_config.h"
#include "modules/opt_decoder.h"
#include "modules/opt_reference.h"
#include "parallel/column_parallel_linear.h"
#include "parallel/mesh.h"

namespace optp {

/// What a forward pass is asked for, besides the ids.
struct OptForwardOptions {
  at::Tensor attention_mask;             ///< [B, T] int64 of 0 and 1; undefined: no padding
  at::Tensor labels;                     ///< [B, T] int64, -100 leaves a position out; undefined: no loss
  bool gather_logits = true;             ///< false: logits of this rank's range of the vocabulary only
  bool output_hidden_states = false;     ///< as transformers' option of that name
  std::optional<DropoutSource> dropout;  ///< absent: no dropout
};

struct OptOutput {
  at::Tensor logits;                      ///< [B, T, V]
  at::Tensor loss;                        ///< [], as transformers: shifted by one, mean over labels that count
  std::vector<at::Tensor> hidden_states;  ///< num_hidden_layers + 1 times [B, T, ..]
};

/// `OPTForCausalLM` with the same parameter names, each rank of `mesh.tensor()` holding its shards. All ranks call
/// forward with the same input. The weights are uninitialised memory until initialize() or a loader has filled them.
class OptForCausalLMImpl : public torch::nn::Cloneable<OptForCausalLMImpl> {
 public:
  /// Throws c10::ValueError when the configuration is invalid or has fewer heads than mesh.tensor() has ranks.
  OptForCausalLMImpl(const OptConfig& config, const Mesh& mesh, at::ScalarType type = at::kFloat);

  void reset() override;

  /// input_ids [B, T] int64, T at most max_position_embeddings.
  OptOutput forward(const at::Tensor& input_ids, const OptForwardOptions& options = {});

  const OptConfig& config() const { return config_; }
  const Mesh& mesh() const { return mesh_; }

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

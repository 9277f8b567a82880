// An embedding table whose rows (the vocabulary) are shared by the ranks of a group.
#pragma once

#include <c10/core/TensorOptions.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <map>
#include <optional>
#include <string>

#include "parallel/parameter_shard.h"
#include "parallel/process_group.h"
#include "parallel/sequence_parallel.h"
#include "parallel/shard.h"
#include "parallel/stored_weight.h"

namespace optp {

struct VocabParallelEmbeddingOptions {
  VocabParallelEmbeddingOptions(int64_t num_embeddings, int64_t embedding_dim)
      : num_embeddings_(num_embeddings), embedding_dim_(embedding_dim) {}

  /// Rows of the whole table.
  TORCH_ARG(int64_t, num_embeddings);
  TORCH_ARG(int64_t, embedding_dim);
  /// Id whose row gets no gradient from the lookup, as in torch::nn::Embedding.
  TORCH_ARG(std::optional<int64_t>, padding_idx) = std::nullopt;
  /// Name of the layer in errors and communication counts.
  TORCH_ARG(std::string, name) = "vocab_parallel_embedding";
  TORCH_ARG(at::TensorOptions, tensor_options);
};

/// Rank r holds the rows layout().range(r). A rank looks up the ids it owns, puts zeros where another rank owns the id,
/// and the sum over the ranks is the lookup in the whole table, bit for bit (all other addends are zero).
/// "<name> forward": all_reduce; backward needs nothing.
/// Parameter: `weight` [local rows, embedding_dim], uninitialised memory until it is filled.
class VocabParallelEmbeddingImpl : public torch::nn::Cloneable<VocabParallelEmbeddingImpl>,
                                   public ShardedModule,
                                   public NarrowableLayer {
 public:
  VocabParallelEmbeddingImpl(VocabParallelEmbeddingOptions options, ProcessGroup group);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// ids [..] int64, the same on every rank -> [.., embedding_dim] on every rank. Ids outside [0, num_embeddings) are a
  /// c10::IndexError.
  ///
  /// Sequence parallelism, when `slices` are given: ids [all tokens] -> this rank's slice of them, [slice,
  /// embedding_dim]. "<name> forward": reduce_scatter of the rows; "<name> backward": all_gather of the slices'
  /// gradients.
  at::Tensor forward(const at::Tensor& ids, const std::optional<TokenSlices>& slices = {});

  std::map<std::string, ParameterShard> sharded_parameters() const override;
  void narrow_weight(at::ScalarType type) override;
  StoredWeight stored_weight() const { return {weight, weight_scale_}; }
  const ShardLayout& layout() const { return layout_; }

  VocabParallelEmbeddingOptions options;
  at::Tensor weight;

 private:
  // [.., embedding_dim], zeros where another rank owns the id.
  at::Tensor own_rows(const at::Tensor& ids);
  // Rows of this rank's part of the table.
  at::Tensor lookup(const at::Tensor& local_ids, int64_t padding) const;

  ProcessGroup group_;
  ShardLayout layout_;
  std::string forward_site_;
  std::string backward_site_;
  at::Tensor weight_scale_;  // of an int8 table, [local rows]
  bool narrowed_ = false;
};

TORCH_MODULE(VocabParallelEmbedding);

}  // namespace optp

// OPT's decoder: embeddings, layers, final layer norm.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <vector>

#include "modules/opt_config.h"
#include "modules/opt_decoder_layer.h"
#include "modules/opt_embedding.h"
#include "modules/opt_forward_options.h"
#include "parallel/vocab_parallel_embedding.h"

namespace optp {

/// Collectives besides those of embed_tokens and of the layers, with sequence parallelism: "model.decoder parameters"
/// adds the gradients of the parameters here that every rank holds whole (positions, final layer norm, projections)
/// over the ranks in one all_reduce; "hidden_states forward" all_gathers each of them if they are asked for.
class OptDecoderImpl : public torch::nn::Cloneable<OptDecoderImpl> {
 public:
  OptDecoderImpl(const OptConfig& config, const ProcessGroup& group, const at::TensorOptions& tensor_options);

  void reset() override;

  /// input_ids [B, T] int64 -> [n, embedding_size], n as in OptPass. Appends to `hidden_states`, if given, what
  /// transformers returns under that name: the input of every layer and the result, [B, T, ..] on every rank. Throws
  /// c10::ValueError for shapes that do not fit, c10::IndexError for ids outside the vocabulary.
  at::Tensor forward(const at::Tensor& input_ids, const OptForwardOptions& options,
                     std::vector<at::Tensor>* hidden_states = nullptr);

  /// How `tokens` tokens of a batch are dealt out to the ranks; nothing if each rank holds all.
  std::optional<TokenSlices> slices(int64_t tokens, const OptForwardOptions& options) const;

  VocabParallelEmbedding embed_tokens{nullptr};
  OptLearnedPositionalEmbedding embed_positions{nullptr};
  torch::nn::Linear project_in{nullptr}, project_out{nullptr};  // null unless the configuration has projections
  torch::nn::LayerNorm final_layer_norm{nullptr};               // null unless the configuration has one
  torch::nn::ModuleList layers{nullptr};

 private:
  OptPass begin_pass(const at::Tensor& input_ids, const at::Tensor& present, const OptForwardOptions& options) const;

  OptConfig config_;
  ProcessGroup group_;
  at::TensorOptions tensor_options_;
};

TORCH_MODULE(OptDecoder);

}  // namespace optp

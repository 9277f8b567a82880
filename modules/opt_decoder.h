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
#include "parallel/vocab_parallel_embedding.h"

namespace optp {

class OptDecoderImpl : public torch::nn::Cloneable<OptDecoderImpl> {
 public:
  OptDecoderImpl(const OptConfig& config, const ProcessGroup& group, const at::TensorOptions& tensor_options);

  void reset() override;

  /// input_ids [B, T] int64; attention_mask [B, T] int64 of 0 and 1, undefined for no padding -> [B, T,
  /// embedding_size], the same on every rank. Appends to `hidden_states`, if given, what transformers returns under
  /// that name: the input of every layer and the result. Throws c10::ValueError for shapes that do not fit,
  /// c10::IndexError for ids outside the vocabulary.
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& attention_mask,
                     const std::optional<DropoutSource>& dropout, std::vector<at::Tensor>* hidden_states = nullptr);

  VocabParallelEmbedding embed_tokens{nullptr};
  OptLearnedPositionalEmbedding embed_positions{nullptr};
  torch::nn::Linear project_in{nullptr}, project_out{nullptr};  // null unless the configuration has projections
  torch::nn::LayerNorm final_layer_norm{nullptr};               // null unless the configuration has one
  torch::nn::ModuleList layers{nullptr};

 private:
  OptConfig config_;
  ProcessGroup group_;
  at::TensorOptions tensor_options_;
};

TORCH_MODULE(OptDecoder);

}  // namespace optp

// What an OPT model is made of: every published size as a preset, validation, and Hugging Face's config.json.
#pragma once

#include <c10/core/ScalarType.h>
#include <torch/arg.h>

#include <cstdint>
#include <string>
#include <vector>

namespace optp {

/// The configuration of an OPT model (Zhang et al., "OPT: Open Pre-trained Transformer Language Models", 2022). Names
/// and defaults are those of `transformers.OPTConfig`; the defaults are OPT-125M.
///
///     auto config = OptConfig::opt_125m().vocab_size(50257);
class OptConfig {
 public:
  TORCH_ARG(int64_t, vocab_size) = 50272;
  TORCH_ARG(int64_t, hidden_size) = 768;
  TORCH_ARG(int64_t, num_hidden_layers) = 12;
  TORCH_ARG(int64_t, num_attention_heads) = 12;
  TORCH_ARG(int64_t, ffn_dim) = 3072;
  /// Longest sequence. The position table has two rows more: OPT's positions start at row 2.
  TORCH_ARG(int64_t, max_position_embeddings) = 2048;
  /// Width of the token embeddings; 0 stands for hidden_size. Otherwise (350m) project_in and project_out join the two.
  TORCH_ARG(int64_t, word_embed_proj_dim) = 0;
  /// Layer norms before each sub-layer and one after the last layer; false (350m): after each sub-layer.
  TORCH_ARG(bool, do_layer_norm_before) = true;
  /// Fine-tunes made before transformers 4.20.1 lack the layer norm after the last layer.
  TORCH_ARG(bool, remove_final_layer_norm) = false;
  /// Biases of the linear layers (Galactica's larger models have none).
  TORCH_ARG(bool, enable_bias) = true;
  /// Weights and biases of the layer norms (Galactica's larger models have none).
  TORCH_ARG(bool, layer_norm_elementwise_affine) = true;
  /// "relu", or "gelu" (exact, with erf).
  TORCH_ARG(std::string, activation_function) = "relu";
  TORCH_ARG(double, dropout) = 0.1;
  TORCH_ARG(double, attention_dropout) = 0.0;
  /// Standard deviation of fresh weights.
  TORCH_ARG(double, init_std) = 0.02;
  /// The head is the embedding table.
  TORCH_ARG(bool, tie_word_embeddings) = true;
  TORCH_ARG(int64_t, pad_token_id) = 1;
  TORCH_ARG(int64_t, bos_token_id) = 2;
  TORCH_ARG(int64_t, eos_token_id) = 2;

 public:
  static OptConfig opt_125m();
  static OptConfig opt_350m();
  static OptConfig opt_1_3b();
  static OptConfig opt_2_7b();
  static OptConfig opt_6_7b();
  static OptConfig opt_13b();
  static OptConfig opt_30b();
  static OptConfig opt_66b();
  static OptConfig opt_175b();
  /// 2 layers, hidden 128, 4 heads, ffn 512, 512 positions, OPT's vocabulary: for trying things.
  static OptConfig opt_tiny();

  /// A preset by the name users write, "opt-125m". Throws c10::ValueError that lists the names.
  static OptConfig preset(const std::string& name);
  static const std::vector<std::string>& preset_names();

  /// From the text of a config.json. Keys that OPT does not have are ignored, as transformers does; a value of the
  /// wrong type, another architecture, or a combination that validate() refuses is a c10::ValueError that names the
  /// key. `source` (a path) stands in the messages.
  static OptConfig from_json(const std::string& text, const std::string& source);
  /// The text of a config.json that transformers loads. `dtype`: of the weights beside it.
  std::string to_json(c10::ScalarType dtype = c10::kFloat) const;

  /// Throws c10::ValueError that names the first value which cannot be built.
  void validate() const;

  int64_t embedding_size() const { return word_embed_proj_dim_ == 0 ? hidden_size_ : word_embed_proj_dim_; }
  int64_t head_dim() const { return hidden_size_ / num_attention_heads_; }
  bool has_projections() const { return embedding_size() != hidden_size_; }
  bool has_final_layer_norm() const { return do_layer_norm_before_ && !remove_final_layer_norm_; }
  /// Parameters of the whole model; a tied head counts once.
  int64_t num_parameters() const;

  friend bool operator==(const OptConfig&, const OptConfig&) = default;
};

}  // namespace optp

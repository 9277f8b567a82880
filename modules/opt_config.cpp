#include "modules/opt_config.h"

#include <c10/util/Exception.h>

namespace optp {
namespace {

void check_at_least(const char* name, int64_t value, int64_t least) {
  TORCH_CHECK_VALUE(value >= least, name, " is ", value, ", but must be at least ", least, ".");
}

void check_probability(const char* name, double value) {
  TORCH_CHECK_VALUE(value >= 0 && value < 1, name, " is ", value, ", but must lie in [0, 1).");
}

}  // namespace

void OptConfig::validate() const {
  check_at_least("vocab_size", vocab_size_, 1);
  check_at_least("hidden_size", hidden_size_, 1);
  check_at_least("num_hidden_layers", num_hidden_layers_, 1);
  check_at_least("num_attention_heads", num_attention_heads_, 1);
  check_at_least("ffn_dim", ffn_dim_, 1);
  check_at_least("max_position_embeddings", max_position_embeddings_, 1);
  check_at_least("word_embed_proj_dim", embedding_size(), 1);
  // Far beyond any model, and small enough that no product of two overflows.
  for (const int64_t size :
       {vocab_size_, hidden_size_, num_hidden_layers_, ffn_dim_, max_position_embeddings_, embedding_size()}) {
    TORCH_CHECK_VALUE(size <= int64_t{1} << 30, "a size of ", size, " is not credible; sizes go up to 2^30.");
  }
  TORCH_CHECK_VALUE(num_hidden_layers_ <= 10'000, "num_hidden_layers is ", num_hidden_layers_,
                    ", which is not credible; there may be up to 10000.");
  const double width = static_cast<double>(hidden_size_);
  const double layer = width * static_cast<double>(4 * hidden_size_ + 2 * ffn_dim_);
  TORCH_CHECK_VALUE(static_cast<double>(num_hidden_layers_) * layer < 0x1p60,
                    "a model of more than 2^60 parameters is not credible; make hidden_size or ffn_dim smaller.");
  TORCH_CHECK_VALUE(hidden_size_ % num_attention_heads_ == 0, "hidden_size ", hidden_size_,
                    " is not a multiple of num_attention_heads ", num_attention_heads_, "; change one of them.");
  TORCH_CHECK_VALUE(activation_function_ == "relu" || activation_function_ == "gelu", "activation_function is \"",
                    activation_function_, "\", but must be \"relu\" or \"gelu\".");
  TORCH_CHECK_VALUE(pad_token_id_ >= 0 && pad_token_id_ < vocab_size_, "pad_token_id ", pad_token_id_,
                    " is outside the vocabulary of ", vocab_size_, ".");
  check_probability("dropout", dropout_);
  check_probability("attention_dropout", attention_dropout_);
  TORCH_CHECK_VALUE(init_std_ > 0, "init_std is ", init_std_, ", but must be above 0.");
}

int64_t OptConfig::num_parameters() const {
  const int64_t d = hidden_size_;
  const int64_t bias = enable_bias_ ? 1 : 0;
  const int64_t layer_norm = layer_norm_elementwise_affine_ ? 2 * d : 0;
  const int64_t attention = 4 * d * (d + bias);
  const int64_t feed_forward = 2 * d * ffn_dim_ + bias * (d + ffn_dim_);
  const int64_t embeddings =
      vocab_size_ * embedding_size() * (tie_word_embeddings_ ? 1 : 2) + (max_position_embeddings_ + 2) * d;
  return embeddings + num_hidden_layers_ * (attention + feed_forward + 2 * layer_norm) +
         (has_final_layer_norm() ? layer_norm : 0) + (has_projections() ? 2 * d * embedding_size() : 0);
}

}  // namespace optp

// From the scores of the next token to its id: the logits processors of `transformers`, and a draw that depends on
// nothing but the seed and the text so far.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/random.h"

namespace optp {

/// How the next token is chosen. The processors are those of `transformers`' `generate` and apply in its order:
/// repetition penalty, temperature, top-k, top-p.
struct SamplingOptions {
  double temperature = 0;         ///< divides the scores; 0: the token with the highest score (greedy)
  int64_t top_k = 0;              ///< keep the k highest scores, and what ties with the last of them; 0: all
  double top_p = 1;               ///< keep the smallest set of likeliest tokens whose probabilities add up to top_p
  double repetition_penalty = 1;  ///< above 1: lower the scores of tokens that occurred (Keskar et al., 2019)

  bool greedy() const { return temperature == 0; }
  /// Throws c10::ValueError that names the first value which makes no sense.
  void validate() const;
};

/// Divides positive scores of the ids that occur in `context` by `penalty` and multiplies negative ones by it, once for
/// each id. `scores` [V] float32 or float64, changed in place; ids outside [first_id, first_id + V) belong to other
/// ranks and are skipped.
void penalize_repetition_(at::Tensor& scores, const std::vector<int64_t>& context, double penalty,
                          int64_t first_id = 0);

/// Temperature, top-k and top-p: scores [V] -> scores [V] with minus infinity for what is not kept. temperature > 0.
at::Tensor warp_scores(const at::Tensor& scores, const SamplingOptions& options);

/// Draws an id with probability softmax(scores) [V]: the largest of score + Gumbel noise (Gumbel, 1954), where the
/// noise of id i is number i of the key's stream. Scores of minus infinity are never drawn.
int64_t draw_token(const at::Tensor& scores, const RandomKey& key);

}  // namespace optp

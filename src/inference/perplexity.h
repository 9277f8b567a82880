// How well a model predicts a text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "modules/opt_for_causal_lm.h"

namespace optp {

struct PerplexityOptions {
  int64_t window = 2048;   ///< tokens that the model reads at once, at least 2
  int64_t stride = 2048;   ///< tokens between the starts of two windows, at most `window`
  int64_t batch_size = 1;  ///< windows in a pass
};

struct Perplexity {
  int64_t tokens = 0;     ///< tokens that were scored
  double loss = 0;        ///< mean of -log p over them, natural logarithm
  double perplexity = 0;  ///< exp(loss)
};

/// Tokens [first, first + count) of the text, int64 [count].
using TokenReader = std::function<at::Tensor(int64_t first, int64_t count)>;

/// Scores a text of `total` tokens. Windows start every `stride` tokens, the last one is the first that reaches the
/// end. Each token is scored once, in the first window that holds it, except a window's first token. The sum is taken
/// in float64. The copies of the model (mesh.data()) share the windows. Collective over the whole mesh; every rank gets
/// the result. `progress`, if given, is called with the tokens done so far after each pass, on every rank.
///
/// Throws c10::ValueError for options that make no sense, windows longer than the model's positions, and a text of
/// fewer than two tokens; c10::IndexError for ids outside the vocabulary.
Perplexity evaluate_perplexity(OptForCausalLM& model, const TokenReader& read, int64_t total,
                               const PerplexityOptions& options, const std::function<void(int64_t)>& progress = {});

}  // namespace optp

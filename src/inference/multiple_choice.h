// Multiple-choice questions: which of several endings a model finds likeliest.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/data/tokenizer.h"
#include "src/inference/choice_item.h"

namespace optp {

struct ChoiceScores {
  int64_t items = 0;
  double accuracy = 0;             ///< share of items whose right choice has the largest log-likelihood
  double accuracy_normalized = 0;  ///< the same for log-likelihood / length of the choice in characters
};

/// Scores the items as lm-evaluation-harness does: log p of the tokens that the choice adds to the context, where a
/// space joins the two unless there is white space between them already; the context's trailing white space counts with
/// the choice; without a context the end token stands in for it. A text longer than the model's positions loses its
/// beginning. Collective over the mesh; copies of the model share the items. `progress` is called with the items done.
ChoiceScores score_choices(OptForCausalLM& model, const Tokenizer& tokenizer, const std::vector<ChoiceItem>& items,
                           const std::function<void(int64_t)>& progress = {});

}  // namespace optp

// The text that a model in training writes for the page of its run.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "modules/opt_for_causal_lm.h"
#include "src/train/trainer.h"
#include "src/train/training_set.h"

namespace optp::cli {

/// For Trainer::sample_with: the model itself, not a copy of it, continues the beginning of `set` by `tokens` tokens
/// (fewer where its positions end). `tokenizer` as open_tokenizer takes it. Empty where the ids of the data are not
/// the tokenizer's, so that there is no text.
std::function<TextSample()> text_sampler(OptForCausalLM model, const std::string& tokenizer, const TrainingSet& set,
                                         uint64_t seed, int64_t tokens);

}  // namespace optp::cli

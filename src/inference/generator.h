// Continues prompts with an OPT model, whole or sharded.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/data/tokenizer.h"
#include "src/inference/prompt_batch.h"
#include "src/inference/sampling.h"
#include "src/inference/token_chooser.h"

namespace optp {

class KvCache;

struct GenerationOptions {
  int64_t max_new_tokens = 64;
  SamplingOptions sampling;
  int64_t num_samples = 1;         ///< continuations of each prompt
  std::vector<std::string> stops;  ///< end a continuation in front of the first of these texts; needs a tokenizer
  uint64_t seed = 0;
};

struct GenerationResult {
  std::vector<int64_t> prompt_ids;
  std::vector<int64_t> output_ids;  ///< the new ids, the end id included when one ended it
  std::string text;                 ///< of output_ids, without special tokens and stop text; empty without a tokenizer
  std::string finish;               ///< "stop": the end id or a stop text; "length": max_new_tokens
};

/// One new token of one continuation.
struct GeneratedToken {
  int64_t prompt = 0;  ///< index into the prompts
  int64_t sample = 0;
  int64_t id = 0;
  std::string text;       ///< what can be shown now: whole characters, and nothing that may become a stop text
  bool finished = false;  ///< the continuation's last token
};
/// Called in the order of the tokens, on every rank alike.
using TokenCallback = std::function<void(const GeneratedToken&)>;

/// All ranks of the model's tensor-parallel group call generate() with the same arguments and get the same results.
///
///     Generator generator(model, tokenizer.get());
///     generator.generate({{2, 250, 1345}}, {.max_new_tokens = 20}, [](const GeneratedToken& token) {
///       std::cout << token.text << std::flush;
///     });
///
/// Prompts of different length run as one batch, padded on the left. A continuation depends on the seed, its sample
/// number and its prompt alone, neither on the degree of parallelism nor on the prompts beside it (unless two scores
/// are equal but for rounding). Ids that stand for no token are never chosen.
class Generator {
 public:
  /// `tokenizer` may be null: then there is no text, and ids 50265 and above count as no tokens in a vocabulary of
  /// 50272 (OPT's table has 7 rows more than its tokenizer has tokens). It must outlive the generator.
  Generator(OptForCausalLM model, const Tokenizer* tokenizer);

  /// The results, prompt by prompt, the samples of a prompt side by side. Throws c10::ValueError: an empty prompt, ids
  /// outside the vocabulary, prompts and new tokens that exceed the model's positions, options that make no sense.
  std::vector<GenerationResult> generate(const std::vector<std::vector<int64_t>>& prompts,
                                         const GenerationOptions& options, const TokenCallback& callback = {});

 private:
  struct Sequence;

  void check(const std::vector<std::vector<int64_t>>& prompts, const GenerationOptions& options) const;
  // The scores of the token that follows `ids` [rows, T], which come after those in the cache: [rows, local V].
  at::Tensor next_scores(const at::Tensor& ids, const PromptBatch& batch, KvCache& cache);
  static std::vector<std::optional<ChoiceContext>> contexts_of(const std::vector<Sequence>& sequences, int64_t step);
  // Adds one token to each sequence that goes on; whether any still does.
  static bool append(const at::Tensor& next, std::vector<Sequence>& sequences, const TokenCallback& callback);

  OptForCausalLM model_;
  const Tokenizer* tokenizer_;
  TokenChooser chooser_;
};

}  // namespace optp

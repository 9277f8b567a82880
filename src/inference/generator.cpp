#include "src/inference/generator.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <string_view>
#include <utility>

#include "modules/kv_cache.h"
#include "src/inference/continuation.h"

namespace optp {
namespace {

constexpr int64_t kOptVocabulary = 50272, kOptTokens = 50265;  // OPT's table has 7 rows more than tokens

// The key of a continuation's random numbers: the seed, the sample and the prompt's content.
RandomKey key_of(uint64_t seed, int64_t sample, const std::vector<int64_t>& prompt) {
  const std::string_view content(reinterpret_cast<const char*>(prompt.data()), prompt.size() * sizeof(int64_t));
  return RandomKey(seed).with("generate").with(sample).with(content);
}

// The ids of this rank's range of the vocabulary that stand for no token, bool [local V]; undefined if there are none.
at::Tensor ids_without_token(const OptForCausalLM& model, const Tokenizer* tokenizer) {
  const bool has_opt_vocabulary = model->config().vocab_size() == kOptVocabulary;
  const Range range = model->decoder->embed_tokens->layout().range(model->mesh().tensor().rank());
  at::Tensor without = at::empty({range.size}, at::kBool);
  bool* out = without.data_ptr<bool>();
  for (int64_t id = range.start; id < range.end(); ++id) {
    *out++ = tokenizer ? !tokenizer->has_token(id) : has_opt_vocabulary && id >= kOptTokens;
  }
  return without.any().item<bool>() ? without : at::Tensor();
}

}  // namespace

// One continuation of one prompt while it comes.
struct Generator::Sequence {
  int64_t prompt, sample;
  std::vector<int64_t> ids;  // the prompt's, then the new ones
  RandomKey key;
  Continuation continuation;
};

Generator::Generator(OptForCausalLM model, const Tokenizer* tokenizer)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      chooser_(model_->decoder->embed_tokens->layout(), model_->mesh().tensor(), ids_without_token(model_, tokenizer)) {
}

void Generator::check(const std::vector<std::vector<int64_t>>& prompts, const GenerationOptions& options) const {
  options.sampling.validate();
  TORCH_CHECK_VALUE(options.max_new_tokens >= 1, "max-new-tokens is ", options.max_new_tokens, "; ask for at least 1.");
  TORCH_CHECK_VALUE(options.num_samples >= 1, "num-samples is ", options.num_samples, "; ask for at least 1.");
  TORCH_CHECK_VALUE(options.stops.empty() || tokenizer_, "stop texts need a tokenizer; name one, or leave them out.");
  TORCH_CHECK_VALUE(!prompts.empty(), "there are no prompts; pass at least one.");
  const OptConfig& config = model_->config();
  for (const auto& prompt : prompts) {
    TORCH_CHECK_VALUE(!prompt.empty(), "a prompt is empty; give each at least one token.");
    for (const int64_t id : prompt) {
      TORCH_CHECK_VALUE(id >= 0 && id < config.vocab_size(), "a prompt holds id ", id, ", outside the vocabulary of ",
                        config.vocab_size(), "; use ids from 0 to ", config.vocab_size() - 1, ".");
    }
    const auto length = static_cast<int64_t>(prompt.size());
    const int64_t positions = config.max_position_embeddings();
    TORCH_CHECK_VALUE(length < positions, "a prompt of ", length, " tokens fills the model's ", positions,
                      " positions; shorten it.");
    TORCH_CHECK_VALUE(length + options.max_new_tokens <= positions, "a prompt of ", length, " tokens and ",
                      options.max_new_tokens, " new ones exceed the model's ", positions,
                      " positions; lower max-new-tokens to ", positions - length, " or shorten the prompt.");
  }
}

std::vector<GenerationResult> Generator::generate(const std::vector<std::vector<int64_t>>& prompts,
                                                  const GenerationOptions& options, const TokenCallback& callback) {
  check(prompts, options);
  const at::InferenceMode inference;
  const OptConfig& config = model_->config();
  const ContinuationRules rules{options.max_new_tokens,
                                config.eos_token_id(),
                                {config.eos_token_id(), config.bos_token_id(), config.pad_token_id()},
                                options.stops};
  std::vector<Sequence> sequences;
  std::vector<std::vector<int64_t>> rows;
  for (size_t prompt = 0; prompt < prompts.size(); ++prompt) {
    for (int64_t sample = 0; sample < options.num_samples; ++sample) {
      sequences.push_back({static_cast<int64_t>(prompt), sample, prompts[prompt],
                           key_of(options.seed, sample, prompts[prompt]), Continuation(tokenizer_, rules)});
      rows.push_back(prompts[prompt]);
    }
  }
  const PromptBatch batch(rows, config.pad_token_id(), options.max_new_tokens);
  KvCache cache(config, model_->mesh().tensor(), batch.rows(), batch.capacity(), model_->dtype());

  at::Tensor ids = batch.ids();  // the prompts in one pass, then one token a pass
  for (int64_t step = 0; step < options.max_new_tokens; ++step) {
    RECORD_USER_SCOPE(c10::str("step/token ", step + 1));
    model_->mesh().watch().set_progress(c10::str("token ", step + 1));
    const at::Tensor next = chooser_.choose(next_scores(ids, batch, cache), contexts_of(sequences, step),
                                            options.sampling);  // [rows]
    if (!append(next, sequences, callback)) break;
    ids = next.unsqueeze(1);
  }

  std::vector<GenerationResult> results;
  for (const Sequence& sequence : sequences) {
    const Continuation& continuation = sequence.continuation;
    results.push_back({prompts[sequence.prompt], continuation.ids(), continuation.text(), continuation.finish()});
  }
  return results;
}

at::Tensor Generator::next_scores(const at::Tensor& ids, const PromptBatch& batch, KvCache& cache) {
  const OptForwardOptions options{.attention_mask = batch.mask(cache.length() + ids.size(1)),
                                  .gather_logits = false,
                                  .cache = &cache,
                                  .last_token_only = true};
  const at::Tensor scores = model_->forward(ids, options).logits.squeeze(1);
  return scores.scalar_type() == at::kDouble ? scores : scores.to(at::kFloat);
}

std::vector<std::optional<ChoiceContext>> Generator::contexts_of(const std::vector<Sequence>& sequences, int64_t step) {
  std::vector<std::optional<ChoiceContext>> contexts;
  for (const Sequence& sequence : sequences) {
    contexts.emplace_back();
    if (!sequence.continuation.finished()) contexts.back() = ChoiceContext{&sequence.ids, sequence.key.with(step)};
  }
  return contexts;
}

bool Generator::append(const at::Tensor& next, std::vector<Sequence>& sequences, const TokenCallback& callback) {
  const int64_t* id = next.const_data_ptr<int64_t>();
  bool goes_on = false;
  for (Sequence& sequence : sequences) {
    const int64_t token = *id++;
    Continuation& continuation = sequence.continuation;
    if (continuation.finished()) continue;
    const std::string text = continuation.push(token);
    sequence.ids.push_back(token);
    goes_on = goes_on || !continuation.finished();
    if (callback) callback({sequence.prompt, sequence.sample, token, text, continuation.finished()});
  }
  return goes_on;
}

}  // namespace optp

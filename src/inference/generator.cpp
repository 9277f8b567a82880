#include "src/inference/generator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string_view>

#include "modules/kv_cache.h"
#include "parallel/vocab_parallel_argmax.h"
#include "src/inference/continuation.h"

namespace optp {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// Prompts side by side, padded on the left, with room for the tokens to come.
struct PromptBatch {
  at::Tensor ids;   // [B, P]
  at::Tensor mask;  // [B, P + new tokens]: 0 where padding stands
};

PromptBatch pad_left(const std::vector<std::vector<int64_t>>& rows, int64_t pad_id, int64_t new_tokens) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  const auto batch = static_cast<int64_t>(rows.size());
  const auto width = static_cast<int64_t>(longest);
  PromptBatch padded{at::full({batch, width}, pad_id, at::kLong), at::ones({batch, width + new_tokens}, at::kLong)};
  for (int64_t row = 0; row < batch; ++row) {
    const auto length = static_cast<int64_t>(rows[row].size());
    std::copy(rows[row].begin(), rows[row].end(), padded.ids[row].data_ptr<int64_t>() + width - length);
    padded.mask[row].narrow(0, 0, width - length).zero_();
  }
  return padded;
}

// The key of a continuation's random numbers: the seed, the sample and the prompt's content.
RandomKey key_of(uint64_t seed, int64_t sample, const std::vector<int64_t>& prompt) {
  const std::string_view content(reinterpret_cast<const char*>(prompt.data()), prompt.size() * sizeof(int64_t));
  return RandomKey(seed).with("generate").with(sample).with(content);
}

}  // namespace

Generator::Generator(OptForCausalLM model, const Tokenizer* tokenizer)
    : model_(std::move(model)), tokenizer_(tokenizer) {
  constexpr int64_t kOptVocabulary = 50272, kOptTokens = 50265;
  const int64_t vocabulary = model_->config().vocab_size();
  const Range range = model_->decoder->embed_tokens->layout().range(model_->mesh().tensor().rank());
  at::Tensor forbidden = at::empty({range.size}, at::kBool);
  bool* out = forbidden.data_ptr<bool>();
  for (int64_t id = range.start; id < range.end(); ++id) {
    *out++ = tokenizer_ ? !tokenizer_->has_token(id) : vocabulary == kOptVocabulary && id >= kOptTokens;
  }
  if (forbidden.any().item<bool>()) forbidden_ = forbidden;
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
  const ProcessGroup& group = model_->mesh().tensor();
  const ShardLayout& vocabulary = model_->decoder->embed_tokens->layout();
  const ContinuationRules rules{options.max_new_tokens,
                                config.eos_token_id(),
                                {config.eos_token_id(), config.bos_token_id(), config.pad_token_id()},
                                options.stops};

  std::vector<std::vector<int64_t>> rows;  // prompt, then what was generated
  std::vector<RandomKey> keys;
  std::vector<Continuation> continuations;
  for (const auto& prompt : prompts) {
    for (int64_t sample = 0; sample < options.num_samples; ++sample) {
      rows.push_back(prompt);
      keys.push_back(key_of(options.seed, sample, prompt));
      continuations.emplace_back(tokenizer_, rules);
    }
  }
  const auto batch = static_cast<int64_t>(rows.size());
  const PromptBatch padded = pad_left(rows, config.pad_token_id(), options.max_new_tokens);
  const bool padding = !padded.mask.all().item<bool>();
  KvCache cache(config, group, batch, padded.mask.size(1), model_->dtype());

  at::Tensor ids = padded.ids;
  at::Tensor next = at::empty({batch}, at::kLong);
  for (int64_t step = 0; step < options.max_new_tokens; ++step) {
    const OptForwardOptions forward{
        .attention_mask = padding ? padded.mask.narrow(1, 0, cache.length() + ids.size(1)) : at::Tensor(),
        .gather_logits = false,
        .cache = &cache,
        .last_token_only = true};
    at::Tensor scores = model_->forward(ids, forward).logits.squeeze(1);  // [B, local V]
    if (scores.scalar_type() != at::kDouble) scores = scores.to(at::kFloat);
    if (forbidden_.defined()) scores.masked_fill_(forbidden_, kNever);
    for (int64_t row = 0; row < batch; ++row) {
      at::Tensor row_scores = scores[row];
      penalize_repetition_(row_scores, rows[row], options.sampling.repetition_penalty,
                           vocabulary.range(group.rank()).start);
    }
    if (options.sampling.greedy()) {
      next = vocab_parallel_argmax(scores, vocabulary, group, "generate");
    } else {
      scores = group.all_gather(scores, 1, vocabulary, "generate");
      for (int64_t row = 0; row < batch; ++row) {
        if (continuations[row].finished()) continue;
        next[row] = draw_token(warp_scores(scores[row], options.sampling), keys[row].with(step));
      }
    }
    bool all_finished = true;
    for (int64_t row = 0; row < batch; ++row) {
      Continuation& continuation = continuations[row];
      if (continuation.finished()) continue;
      const int64_t id = next[row].item<int64_t>();
      const std::string text = continuation.push(id);
      rows[row].push_back(id);
      all_finished = all_finished && continuation.finished();
      if (callback) {
        callback({row / options.num_samples, row % options.num_samples, id, text, continuation.finished()});
      }
    }
    if (all_finished) break;
    ids = next.unsqueeze(1);
  }

  std::vector<GenerationResult> results;
  for (int64_t row = 0; row < batch; ++row) {
    const Continuation& continuation = continuations[row];
    results.push_back(
        {prompts[row / options.num_samples], continuation.ids(), continuation.text(), continuation.finish()});
  }
  return results;
}

}  // namespace optp

#include "src/inference/multiple_choice.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "parallel/vocab_parallel_cross_entropy.h"

namespace optp {
namespace {

constexpr int64_t kIgnored = -100;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

int64_t characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// The tokens of a context and a choice, and how many at the end belong to the choice.
struct EncodedChoice {
  std::vector<int64_t> ids;
  int64_t scored = 0;
};

EncodedChoice encode_choice(const Tokenizer& tokenizer, std::string context, std::string choice, int64_t end_id,
                            int64_t longest) {
  if (!context.empty() && !is_space(context.back()) && !is_space(choice.front())) choice.insert(0, " ");
  size_t kept = context.size();
  while (kept > 0 && is_space(context[kept - 1])) --kept;
  choice.insert(0, context.substr(kept));
  context.resize(kept);

  EncodedChoice encoded;
  if (context.empty()) {
    encoded.ids = tokenizer.encode(choice);
    encoded.scored = static_cast<int64_t>(encoded.ids.size());
    encoded.ids.insert(encoded.ids.begin(), end_id);
  } else {
    encoded.ids = tokenizer.encode(context + choice);
    encoded.scored = static_cast<int64_t>(encoded.ids.size() - tokenizer.encode(context).size());
  }
  const auto excess = static_cast<int64_t>(encoded.ids.size()) - longest;
  if (excess > 0) encoded.ids.erase(encoded.ids.begin(), encoded.ids.begin() + excess);
  encoded.scored = std::min<int64_t>(encoded.scored, static_cast<int64_t>(encoded.ids.size()) - 1);
  return encoded;
}

// log p of each choice given its context, float64 [choices].
at::Tensor log_likelihoods(OptForCausalLM& model, const std::vector<EncodedChoice>& rows) {
  size_t longest = 0;
  for (const EncodedChoice& row : rows) longest = std::max(longest, row.ids.size());
  const auto batch = static_cast<int64_t>(rows.size());
  const auto width = static_cast<int64_t>(longest) - 1;
  at::Tensor ids = at::full({batch, width}, model->config().pad_token_id(), at::kLong);
  at::Tensor targets = at::full({batch, width}, kIgnored, at::kLong);
  for (int64_t row = 0; row < batch; ++row) {
    const std::vector<int64_t>& all = rows[row].ids;
    std::copy(all.begin(), all.end() - 1, ids[row].data_ptr<int64_t>());
    const auto last = static_cast<int64_t>(all.size()) - 1;
    std::copy(all.end() - rows[row].scored, all.end(), targets[row].data_ptr<int64_t>() + last - rows[row].scored);
  }
  const at::Tensor logits = model->forward(ids, {.gather_logits = false}).logits;
  return vocab_parallel_cross_entropy(logits.flatten(0, 1), targets.flatten(), model->decoder->embed_tokens->layout(),
                                      model->mesh().tensor(), kIgnored, "eval")
      .view({batch, width})
      .sum(1, /*keepdim=*/false, at::kDouble)
      .neg();
}

}  // namespace

ChoiceScores score_choices(OptForCausalLM& model, const Tokenizer& tokenizer, const std::vector<ChoiceItem>& items,
                           const std::function<void(int64_t)>& progress) {
  const at::InferenceMode inference;
  const ProcessGroup& copies = model->mesh().data();
  const int64_t longest = model->config().max_position_embeddings() + 1;
  const auto count = static_cast<int64_t>(items.size());
  at::Tensor right = at::zeros({2}, at::kDouble);
  for (int64_t index = copies.rank(); index < count; index += copies.size()) {
    const ChoiceItem& item = items[index];
    std::vector<EncodedChoice> rows;
    std::vector<double> lengths;
    for (const std::string& choice : item.choices) {
      rows.push_back(encode_choice(tokenizer, item.context, choice, model->config().eos_token_id(), longest));
      lengths.push_back(static_cast<double>(characters(choice)));
    }
    const at::Tensor scores = log_likelihoods(model, rows);
    right[0] += scores.argmax().item<int64_t>() == item.answer ? 1 : 0;
    right[1] += scores.div(at::tensor(lengths, at::kDouble)).argmax().item<int64_t>() == item.answer ? 1 : 0;
    if (progress) progress(std::min(index + copies.size(), count));
  }
  copies.all_reduce_(right, "eval");
  const auto total = static_cast<double>(count);
  return {count, right[0].item<double>() / total, right[1].item<double>() / total};
}

}  // namespace optp

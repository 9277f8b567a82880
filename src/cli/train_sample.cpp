#include "src/cli/train_sample.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "src/data/tokenizer.h"
#include "src/inference/generator.h"

namespace optp::cli {

std::function<TextSample()> text_sampler(OptForCausalLM model, const std::string& tokenizer, const TrainingSet& set,
                                         uint64_t seed, int64_t tokens) {
  constexpr int64_t kPromptTokens = 32;
  const int64_t positions = model->config().max_position_embeddings();
  if (set.size() == 0 || positions < 2) return {};
  const at::Tensor begin = set.read(/*epoch=*/0, /*first=*/0, 1).input[0].contiguous();
  const int64_t length = std::min({kPromptTokens, begin.numel(), positions / 2});
  const std::vector<int64_t> prompt(begin.const_data_ptr<int64_t>(), begin.const_data_ptr<int64_t>() + length);
  const std::shared_ptr<const Tokenizer> text = open_tokenizer(tokenizer);
  if (!std::all_of(prompt.begin(), prompt.end(), [&](int64_t id) { return text->has_token(id); })) return {};

  GenerationOptions options{.max_new_tokens = std::min(tokens, positions - length), .seed = seed};
  options.sampling = {.temperature = 0.8, .top_p = 0.95};
  return [generator = std::make_shared<Generator>(std::move(model), text.get()), text, prompt, options] {
    return TextSample{text->decode(prompt), generator->generate({prompt}, options).front().text};
  };
}

}  // namespace optp::cli

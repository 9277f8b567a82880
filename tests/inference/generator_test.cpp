// Check "generation" from C++: tokens as they come, every degree alike, and what is refused.
#include "src/inference/generator.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>

#include "src/data/tokenizer.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using Prompts = std::vector<std::vector<int64_t>>;

// Greedy by the definition: the whole text again for every token, no cache, no batch.
std::vector<int64_t> greedy_by_hand(OptReference& model, std::vector<int64_t> ids, int64_t new_tokens) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> output;
  for (int64_t i = 0; i < new_tokens && (output.empty() || output.back() != kEndToken); ++i) {
    const at::Tensor logits = model->forward(at::tensor(ids, at::kLong).unsqueeze(0)).logits[0];
    output.push_back(logits[-1].argmax().item<int64_t>());
    ids.push_back(output.back());
  }
  return output;
}

TEST(Generator, ContinuesEachPromptAsAloneAndWithoutACache) {
  OptReference whole(testing::small_opt());
  testing::randomize(*whole, 1);
  whole->to(at::kDouble);  // scores that tie within rounding have no say
  const Prompts prompts{{2, 9}, {2, 30, 31, 32, 33}, {7}};
  Prompts expected;
  for (const auto& prompt : prompts) expected.push_back(greedy_by_hand(whole, prompt, 12));
  for (const int64_t tp : {1, 3}) {
    testing::run_ranks(tp, [&](const Mesh& mesh) {
      Generator generator(shard(whole, mesh), /*tokenizer=*/nullptr);
      std::map<int64_t, std::vector<int64_t>> seen;
      int64_t finished = 0;
      const auto results = generator.generate(prompts, {.max_new_tokens = 12}, [&](const GeneratedToken& token) {
        seen[token.prompt].push_back(token.id);
        finished += token.finished ? 1 : 0;
      });
      ASSERT_EQ(results.size(), 3U);
      for (int64_t row = 0; row < 3; ++row) {
        EXPECT_EQ(results[row].prompt_ids, prompts[row]);
        EXPECT_EQ(results[row].output_ids, expected[row]);
        EXPECT_EQ(seen[row], expected[row]);
        EXPECT_EQ(results[row].finish, expected[row].back() == kEndToken ? "stop" : "length");
      }
      EXPECT_EQ(finished, 3);
    });
  }
}

// What the README shows, compiled and run.
TEST(Readme, GenerateFromCpp) {
  OptReference whole(testing::small_opt().vocab_size(260));
  testing::randomize(*whole, 2);
  OptForCausalLM model = shard(whole, Mesh());
  std::string shown;

  auto tokenizer = open_tokenizer("bytes");  // or a folder with vocab.json and merges.txt
  Generator generator(model, tokenizer.get());
  auto prompt = tokenizer->encode("A photo");
  auto results = generator.generate({prompt}, {.max_new_tokens = 20, .sampling = {.temperature = 0.8, .top_p = 0.95}},
                                    [&](const GeneratedToken& token) { shown += token.text; });

  EXPECT_FALSE(shown.empty());
  EXPECT_EQ(results.at(0).text, shown);
}

TEST(Generator, NeverChoosesAnIdWithoutAToken) {
  // A vocabulary of 400 of which the tokenizer knows 260: ids above win by far, and are not chosen.
  OptReference whole(testing::small_opt().vocab_size(400).tie_word_embeddings(false));
  testing::randomize(*whole, 3);
  {
    const at::NoGradGuard no_grad;
    whole->named_parameters()["lm_head.weight"].slice(0, 260).mul_(100);
  }
  const auto tokenizer = open_tokenizer("bytes");
  for (const Tokenizer* known :
       {static_cast<const Tokenizer*>(nullptr), const_cast<const Tokenizer*>(tokenizer.get())}) {
    Generator generator(shard(whole, Mesh()), known);
    for (const double temperature : {0.0, 1.0}) {
      bool beyond = false;
      const auto results = generator.generate({{2, 9}, {2, 50}}, {.max_new_tokens = 10, .sampling = {temperature}});
      for (const auto& result : results) {
        for (const int64_t id : result.output_ids) beyond = beyond || id >= 260;
      }
      EXPECT_EQ(beyond, known == nullptr);
    }
  }
}

TEST(Generator, RefusesWhatMakesNoSense) {
  OptForCausalLM model = shard(OptReference(testing::small_opt()), Mesh());  // 61 words, 32 positions
  Generator generator(model, nullptr);
  const auto message = [&](const Prompts& prompts, const GenerationOptions& options = {.max_new_tokens = 4}) {
    return testing::message_of<c10::ValueError>([&] { generator.generate(prompts, options); });
  };
  EXPECT_THAT(message({}), HasSubstr("there are no prompts"));
  EXPECT_THAT(message({{2}, {}}), HasSubstr("a prompt is empty"));
  EXPECT_THAT(message({{2, 61}}), HasSubstr("id 61, outside the vocabulary of 61; use ids from 0 to 60"));
  EXPECT_THAT(message({{2, -1}}), HasSubstr("id -1, outside the vocabulary"));
  EXPECT_THAT(message({std::vector<int64_t>(32, 5)}), HasSubstr("32 tokens fills the model's 32 positions"));
  EXPECT_THAT(message({std::vector<int64_t>(29, 5)}), HasSubstr("lower max-new-tokens to 3"));
  EXPECT_THAT(message({{2}}, {.max_new_tokens = 0}), HasSubstr("max-new-tokens is 0"));
  EXPECT_THAT(message({{2}}, {.max_new_tokens = 4, .num_samples = 0}), HasSubstr("num-samples is 0"));
  EXPECT_THAT(message({{2}}, {.max_new_tokens = 4, .sampling = {.temperature = -1}}), HasSubstr("temperature -1"));
  EXPECT_THAT(message({{2}}, {.max_new_tokens = 4, .stops = {"x"}}), HasSubstr("stop texts need a tokenizer"));
  EXPECT_EQ(message({std::vector<int64_t>(28, 5)}), "no error");  // 28 + 4 tokens fit exactly
}

}  // namespace
}  // namespace optp

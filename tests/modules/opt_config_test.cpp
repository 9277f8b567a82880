// Configurations: the published sizes, config.json in and out, and what is refused.
#include "modules/opt_config.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_reference.h"
#include "tests/support/errors.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

using testing::message_of;

TEST(OptConfig, MemoryPublishedParameterCounts) {
  // Counted from transformers' models.
  const std::map<std::string, int64_t> published = {
      {"opt-125m", 125239296},  {"opt-350m", 331196416},  {"opt-1.3b", 1315758080},
      {"opt-2.7b", 2651596800}, {"opt-6.7b", 6658473984}, {"opt-13b", 12853473280},
      {"opt-30b", 29974540288}, {"opt-66b", 65719701504}, {"opt-175b", 174604468224},
  };
  for (const auto& [name, parameters] : published) {
    EXPECT_EQ(OptConfig::preset(name).num_parameters(), parameters) << name;
    EXPECT_NO_THROW(OptConfig::preset(name).validate()) << name;
  }
  EXPECT_EQ(OptConfig::preset_names().size(), published.size() + 1);
}

TEST(OptConfig, MemoryCountIsWhatTheModelsHold) {
  for (const OptConfig& config :
       {testing::small_opt(), testing::small_opt().word_embed_proj_dim(7).do_layer_norm_before(false),
        testing::small_opt().enable_bias(false).layer_norm_elementwise_affine(false),
        testing::small_opt().tie_word_embeddings(false).remove_final_layer_norm(true)}) {
    int64_t sharded = 0;
    for (const auto& parameter : OptForCausalLM(config, Mesh())->parameters()) sharded += parameter.numel();
    int64_t reference = 0;
    for (const auto& parameter : OptReference(config)->parameters()) reference += parameter.numel();
    EXPECT_EQ(config.num_parameters(), sharded);
    EXPECT_EQ(config.num_parameters(), reference);
  }
}

TEST(OptConfig, EveryPresetRoundTripsThroughJson) {
  for (const std::string& name : OptConfig::preset_names()) {
    const OptConfig config = OptConfig::preset(name);
    const OptConfig back = OptConfig::from_json(config.to_json(), name);
    // An absent projection width is written as the hidden size, as transformers does.
    EXPECT_EQ(OptConfig(back).word_embed_proj_dim(config.word_embed_proj_dim()), config) << name;
    EXPECT_EQ(back.embedding_size(), config.embedding_size()) << name;
  }
}

TEST(OptConfig, ReadsWhatIsPublished) {
  // The configuration of facebook/opt-350m, shortened to what differs.
  const OptConfig config = OptConfig::from_json(R"({"_remove_final_layer_norm": false, "activation_function": "relu",
    "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": false,
    "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 4096, "hidden_size": 1024, "init_std": 0.02, "layerdrop": 0.0,
    "max_position_embeddings": 2048, "model_type": "opt", "num_attention_heads": 16, "num_hidden_layers": 24,
    "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.20.0.dev0",
    "use_cache": true, "vocab_size": 50272, "word_embed_proj_dim": 512})",
                                                "config.json");
  EXPECT_EQ(OptConfig(config).init_std(0.006), OptConfig::opt_350m());
}

TEST(OptConfig, ErrorsNameTheKeyAndTheValue) {
  const auto error = [](const std::string& text) {
    return message_of([&] { OptConfig::from_json(text, "m/config.json"); });
  };
  const std::map<std::string, std::string> wrong = {
      {"", "m/config.json is not valid JSON at byte 1."},
      {R"({"hidden_size": 768)", "m/config.json is not valid JSON at byte 20."},
      {R"({"dropout": 1e999})", "not valid JSON: a number in it is too large."},
      {std::string(1'000'000, '['), "not valid JSON at byte 1000001."},
      {"[1]", "holds no JSON object"},
      {R"({"hidden_size": )" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}",
       "hidden_size is a list"},
      {R"({"dropout": {}})", "dropout is an object, but must be a number"},
      {R"({"model_type": "gpt2"})", "model_type is \"gpt2\""},
      {R"({"hidden_size": "768"})", "hidden_size is \"768\", but must be an integer"},
      {R"({"hidden_size": 768.5})", "hidden_size is 768.5"},
      {R"({"hidden_size": 18446744073709551615})", "too large"},
      {R"({"hidden_size": 4611686018427387904})", "not credible"},
      {R"({"hidden_size": -8})", "hidden_size is -8"},
      {R"({"hidden_size": 770})", "hidden_size 770 is not a multiple of num_attention_heads 12"},
      {R"({"num_hidden_layers": 0})", "num_hidden_layers is 0"},
      {R"({"num_hidden_layers": 10001})", "num_hidden_layers is 10001, which is not credible"},
      {R"({"hidden_size": 1073741824, "num_attention_heads": 1})", "more than 2^60 parameters"},
      {R"({"dropout": 1.5})", "dropout is 1.5"},
      {R"({"dropout": true})", "dropout is true, but must be a number"},
      {R"({"enable_bias": 1})", "enable_bias is 1, but must be true or false"},
      {R"({"activation_function": "silu"})", "activation_function is \"silu\""},
      {R"({"model_type": "o\npt"})", "model_type is \"o\\npt\", which is no name"},
      {R"({"hidden_size": ")" + std::string(9999, 'x') + "\"}", "x..., but must be an integer"},
      {R"({"pad_token_id": 50272})", "pad_token_id 50272 is outside the vocabulary"},
  };
  for (const auto& [text, expected] : wrong) {
    EXPECT_NE(error(text).find(expected), std::string::npos) << text << " -> " << error(text);
  }
  EXPECT_NE(message_of([] { OptConfig::preset("opt-126m"); }).find("opt-125m"), std::string::npos);
}

}  // namespace
}  // namespace optp

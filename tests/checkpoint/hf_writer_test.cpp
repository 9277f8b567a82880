// A model directory written tensor by tensor: whole or absent, cut and named as transformers does, and read back the
// same.
#include "src/checkpoint/hf_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "modules/opt_for_causal_lm.h"
#include "src/checkpoint/hf_directory.h"
#include "src/checkpoint/safetensors.h"
#include "tests/checkpoint/checkpoint_files.h"
#include "tests/support/ranks.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsSubstring;
using ::testing::UnorderedElementsAre;

std::vector<std::string> entries(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

// Tensors of 400, 80 and 100 bytes in float32.
const std::vector<TensorSpec> kSpecs = {{"model.decoder.embed_tokens.weight", at::kFloat, {20, 5}},
                                        {"model.decoder.layers.0.fc1.weight", at::kFloat, {4, 5}},
                                        {"model.decoder.layers.0.fc2.weight", at::kFloat, {5, 5}}};

std::vector<at::Tensor> values() { return {at::randn({20, 5}), at::randn({4, 5}), at::randn({5, 5})}; }

TEST(HfWriter, WritesWhatIsReadBack) {
  const TemporaryFolder folder;
  const std::vector<at::Tensor> whole = values();
  HfWriter writer(folder / "model", OptConfig(), kSpecs);
  writer.write(whole[0].narrow(0, 0, 7));
  writer.write(whole[0].narrow(0, 7, 13));
  writer.write(whole[1].t().contiguous().t());
  writer.write(whole[2]);
  EXPECT_FALSE(std::filesystem::exists(folder / "model"));
  writer.commit();
  EXPECT_THAT(entries(folder.path()), ElementsAre("model"));
  EXPECT_THAT(entries(folder / "model"),
              UnorderedElementsAre("config.json", "generation_config.json", "model.safetensors"));
  const SafetensorsFile file(folder / "model" / "model.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (size_t i = 0; i < kSpecs.size(); ++i) EXPECT_TRUE(at::equal(file.read(kSpecs[i].name), whole[i]));
  EXPECT_EQ(OptConfig::from_json(read_bytes(folder / "model" / "config.json"), "config.json"),
            OptConfig().word_embed_proj_dim(768));
}

TEST(HfWriter, ConvertsToTheAnnouncedType) {
  const TemporaryFolder folder;
  std::vector<TensorSpec> specs = kSpecs;
  for (TensorSpec& spec : specs) spec.dtype = at::kBFloat16;
  const std::vector<at::Tensor> whole = values();
  HfWriter writer(folder / "model", OptConfig(), specs);
  for (const at::Tensor& tensor : whole) writer.write(tensor);
  writer.commit();
  const SafetensorsFile file(folder / "model" / "model.safetensors");
  for (size_t i = 0; i < specs.size(); ++i) {
    EXPECT_TRUE(at::equal(file.read(specs[i].name), whole[i].to(at::kBFloat16)));
  }
  const auto config = nlohmann::json::parse(read_bytes(folder / "model" / "config.json"));
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
}

TEST(HfWriter, CutsFilesAndIndexesThem) {
  const TemporaryFolder folder;
  const std::vector<at::Tensor> whole = values();
  HfWriter writer(folder / "model", OptConfig(), kSpecs, {.max_shard_size = 150});
  for (const at::Tensor& tensor : whole) writer.write(tensor);
  writer.commit();
  EXPECT_THAT(entries(folder / "model"),
              UnorderedElementsAre("config.json", "generation_config.json", "model.safetensors.index.json",
                                   "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                   "model-00003-of-00003.safetensors"));
  const auto index = nlohmann::json::parse(read_bytes(folder / "model" / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 580);
  EXPECT_EQ(index["metadata"]["total_parameters"], 145);
  EXPECT_EQ(index["weight_map"][kSpecs[2].name], "model-00003-of-00003.safetensors");
  const HfDirectory directory(folder / "model");
  for (size_t i = 0; i < kSpecs.size(); ++i) {
    const at::Tensor back = at::empty_like(whole[i]);
    directory.read({kSpecs[i].name, back, {.shape = kSpecs[i].shape, .dim = {}, .layout = {}, .part = 0}});
    EXPECT_TRUE(at::equal(back, whole[i]));
  }
}

TEST(HfWriter, CopiesTheTokenizerAndTheGenerationConfig) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "from");
  for (const char* name : {"vocab.json", "merges.txt", "generation_config.json", "secret.txt"}) {
    write_bytes(folder / "from" / name, name);
  }
  HfWriter writer(folder / "model", OptConfig(), {kSpecs[0]},
                  {.tokenizer = folder / "from", .generation_config = folder / "from"});
  writer.write(values()[0]);
  writer.commit();
  EXPECT_THAT(entries(folder / "model"), UnorderedElementsAre("config.json", "generation_config.json", "vocab.json",
                                                              "merges.txt", "model.safetensors"));
  EXPECT_EQ(read_bytes(folder / "model" / "generation_config.json"), "generation_config.json");
}

TEST(SafetensorsWriter, EmptyTensorsMayComeFirstAndLast) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder / "a",
                           {{"first", at::kFloat, {0}}, {"a", at::kFloat, {2}}, {"last", at::kFloat, {0}}});
  EXPECT_THROW(writer.commit(), c10::Error);
  writer.write(at::empty({0}));
  writer.write(at::ones({2}));
  writer.write(at::empty({0}));
  writer.commit();
  const SafetensorsFile file(folder / "a");
  EXPECT_THAT(file.names(), ElementsAre("first", "a", "last"));
  EXPECT_TRUE(at::equal(file.read("a"), at::ones({2})));
}

TEST(HfWriter, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  {
    HfWriter writer(folder / "model", OptConfig(), kSpecs);
    writer.write(values()[0]);
    EXPECT_THROW(writer.commit(), c10::Error);
    EXPECT_THROW(writer.write(at::zeros({21})), c10::Error);
  }
  EXPECT_THAT(entries(folder.path()), ElementsAre());
}

TEST(HfWriter, OverwritesNothing) {
  const TemporaryFolder folder;
  const auto error_of = [&](const std::filesystem::path& path) {
    return value_error([&] { HfWriter writer(path, OptConfig(), kSpecs); });
  };
  std::filesystem::create_directory(folder / "model");
  write_bytes(folder / "model" / "notes.txt", "mine");
  EXPECT_PRED_FORMAT2(IsSubstring, "model: it exists and is not empty", error_of(folder / "model"));
  EXPECT_PRED_FORMAT2(IsSubstring, "model: it exists and is not empty", error_of(folder / "model/"));
  EXPECT_PRED_FORMAT2(IsSubstring, "a file has that name", error_of(folder / "model" / "notes.txt"));
  std::filesystem::create_directory_symlink(folder / "gone", folder / "link");
  EXPECT_PRED_FORMAT2(IsSubstring, "a file has that name", error_of(folder / "link"));
  EXPECT_EQ(read_bytes(folder / "model" / "notes.txt"), "mine");

  std::filesystem::create_directory(folder / "empty");
  std::filesystem::create_directory_symlink(folder / "empty", folder / "to-empty");
  for (const char* name : {"to-empty", "empty2/", "new/parent"}) {
    HfWriter writer(folder / name, OptConfig(), {kSpecs[0]});
    writer.write(values()[0]);
    writer.commit();
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "empty" / "model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder / "empty2" / "model.safetensors"));
}

TEST(HfWriter, RanksWriteTheirModelTogether) {
  const OptConfig config = optp::testing::small_opt();
  const TemporaryFolder folder;
  OptForCausalLM whole(config, Mesh());
  optp::testing::randomize(*whole, 5);
  optp::testing::run_ranks_over(Mesh::Comm::automatic, 3, 2, [&](const Mesh& mesh) {
    OptForCausalLM model(config, mesh);
    copy_from_whole(named_shards(*model), *whole);
    write_hf_directory(folder / "model", config, named_shards(*model), mesh);
    const auto again = [&] { write_hf_directory(folder / "model", config, named_shards(*model), mesh); };
    EXPECT_PRED_FORMAT2(IsSubstring, "it exists and is not empty", value_error(again));
    write_hf_directory(folder / "model", config, named_shards(*model), mesh, at::kHalf, {.replace = true});
    write_hf_directory(folder / "exact", config, named_shards(*model), mesh);
  });
  const SafetensorsFile exact(folder / "exact" / "model.safetensors");
  const SafetensorsFile half(folder / "model" / "model.safetensors");
  for (const auto& parameter : whole->named_parameters()) {
    EXPECT_TRUE(at::equal(exact.read(parameter.key()), parameter.value()));
    EXPECT_TRUE(at::equal(half.read(parameter.key()), parameter.value().to(at::kHalf)));
  }
  EXPECT_THAT(entries(folder.path()), UnorderedElementsAre("model", "exact"));
}

// The expected values are those of huggingface_hub 0.36.
TEST(HfWriter, SplitsAsTransformersDoes) {
  using Shards = std::vector<std::vector<size_t>>;
  EXPECT_EQ(split_into_shards({6, 6, 2, 6, 2, 2}, 10), (Shards{{0}, {1, 2}, {3, 4, 5}}));
  EXPECT_EQ(split_into_shards({3, 4, 99, 5, 1, 99}, 10), (Shards{{2}, {0, 1}, {5}, {3, 4}}));
  EXPECT_EQ(split_into_shards({10, 10}, 10), (Shards{{0}, {1}}));
  EXPECT_EQ(split_into_shards({1, 2, 3}, 10), (Shards{{0, 1, 2}}));
  EXPECT_EQ(split_into_shards({11}, 10), (Shards{{0}}));
}

TEST(HfWriter, SizesAreWrittenAsTransformersWritesThem) {
  EXPECT_EQ(parse_shard_size("5GB"), 5'000'000'000U);
  EXPECT_EQ(parse_shard_size("200KB"), 200'000U);
  EXPECT_EQ(parse_shard_size("1.5 mb"), 1'500'000U);
  EXPECT_EQ(parse_shard_size("2TB"), 2'000'000'000'000U);
  EXPECT_EQ(parse_shard_size("12345"), 12345U);
  for (const std::string text : {"", "GB", "5GiB", "-5GB", "5G B C", "0", "nan", "inf", "1.2.3GB", "99999999999TB"}) {
    EXPECT_PRED_FORMAT2(IsSubstring, "\"" + text + "\" is no size", value_error([&] { parse_shard_size(text); }));
  }
}

}  // namespace
}  // namespace optp

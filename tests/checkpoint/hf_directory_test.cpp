// A Hugging Face model directory: every parameter gets its range of the right tensor, and whatever does not fit is one
// clear error.
#include "src/checkpoint/hf_directory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <utility>

#include "src/checkpoint/safetensors_writer.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace optp {
namespace {

using ::testing::IsSubstring;
using TensorList = std::vector<std::pair<std::string, at::Tensor>>;

const std::string kEmbedding = "model.decoder.embed_tokens.weight";
const std::string kRows = "model.decoder.layers.0.fc1.weight";
const std::string kColumns = "model.decoder.layers.0.fc2.weight";
const std::string kBias = "model.decoder.layers.0.fc2.bias";

// Stands for a model: a parameter for each way to cut one.
TensorList tensors_of_model() {
  return {{kEmbedding, at::randn({9, 4})},
          {kRows, at::randn({7, 4})},
          {kColumns, at::randn({4, 7})},
          {kBias, at::randn({4})}};
}

std::vector<NamedShard> shards_of_model(int64_t part, int64_t parts, at::ScalarType dtype = at::kFloat) {
  const auto parameter = [&](const std::string& name, std::vector<int64_t> shape, std::optional<int64_t> dim) {
    ParameterShard shard{.shape = std::move(shape), .dim = dim, .layout = {}, .part = part};
    if (dim) shard.layout = ShardLayout(shard.shape[*dim], parts);
    return NamedShard{name, at::full(shard.local_shape(), -1, dtype).requires_grad_(), shard};
  };
  return {parameter(kEmbedding, {9, 4}, 0), parameter(kRows, {7, 4}, 0), parameter(kColumns, {4, 7}, 1),
          parameter(kBias, {4}, std::nullopt)};
}

void expect_loads(const HfDirectory& directory, const TensorList& whole, at::ScalarType dtype = at::kFloat) {
  for (const int64_t parts : {1, 2, 3}) {
    for (int64_t part = 0; part < parts; ++part) {
      const std::vector<NamedShard> shards = shards_of_model(part, parts, dtype);
      directory.load(shards);
      for (size_t i = 0; i < shards.size(); ++i) {
        const at::Tensor expected = shards[i].shard.slice(whole[i].second).to(dtype);
        EXPECT_TRUE(at::equal(shards[i].tensor, expected)) << shards[i].name << " " << part << " of " << parts;
      }
    }
  }
}

// A directory with config.json and nothing else yet.
class HfDirectoryTest : public ::testing::Test {
 protected:
  HfDirectoryTest() { write_bytes(folder_ / "config.json", "{}"); }

  void write(const TensorList& tensors, const std::string& file = "model.safetensors") const {
    write_safetensors(folder_ / file, tensors);
  }
  void write_index(const std::string& json) const { write_bytes(folder_ / "model.safetensors.index.json", json); }

  // The model in two files and their index, whose text comes back.
  std::string write_two_shards(const TensorList& tensors) const {
    write({tensors[0], tensors[1]}, "model-00001-of-00002.safetensors");
    write({tensors[2], tensors[3]}, "model-00002-of-00002.safetensors");
    std::string json = R"({"metadata": {"total_size": 1}, "weight_map": {)";
    for (size_t i = 0; i < tensors.size(); ++i) {
      json += (i > 0 ? ", \"" : "\"") + tensors[i].first + "\": \"model-0000" + (i < 2 ? "1" : "2") +
              "-of-00002.safetensors\"";
    }
    write_index(json + "}}");
    return json + "}}";
  }

  std::string open_error() const {
    const std::string message = value_error([&] { HfDirectory directory(folder_.path()); });
    EXPECT_PRED_FORMAT2(IsSubstring, folder_.path().string(), message);
    return message;
  }

  // The error of loading the model, of which no parameter may have changed.
  std::string load_error() const {
    const HfDirectory directory(folder_.path());
    const std::vector<NamedShard> shards = shards_of_model(1, 2);
    const std::string message = value_error([&] { directory.load(shards); });
    EXPECT_PRED_FORMAT2(IsSubstring, folder_.path().string(), message);
    for (const NamedShard& shard : shards) EXPECT_TRUE(shard.tensor.eq(-1).all().item<bool>()) << shard.name;
    return message;
  }

  TemporaryFolder folder_;
};

TEST_F(HfDirectoryTest, EveryRankLoadsItsRanges) {
  const TensorList whole = tensors_of_model();
  write(whole);
  const HfDirectory directory(folder_.path());
  expect_loads(directory, whole);
  expect_loads(directory, whole, at::kDouble);
}

TEST_F(HfDirectoryTest, HalfPrecisionFilesConvert) {
  for (const auto dtype : {at::kHalf, at::kBFloat16}) {
    TensorList whole = tensors_of_model();
    for (auto& named : whole) named.second = named.second.to(dtype);
    write(whole);
    expect_loads(HfDirectory(folder_.path()), whole);
  }
}

TEST_F(HfDirectoryTest, LoadsShardsByTheirIndex) {
  const TensorList whole = tensors_of_model();
  write_two_shards(whole);
  expect_loads(HfDirectory(folder_.path()), whole);
}

TEST_F(HfDirectoryTest, NamesWithoutTheirPrefix) {
  const TensorList whole = tensors_of_model();
  for (const std::string prefix : {"model.", "model.decoder."}) {
    TensorList published = whole;
    for (auto& named : published) named.first = named.first.substr(prefix.size());
    write(published);
    expect_loads(HfDirectory(folder_.path()), whole);
    std::filesystem::remove(folder_ / "model.safetensors");
    write_two_shards(published);
    expect_loads(HfDirectory(folder_.path()), whole);
  }
}

TEST_F(HfDirectoryTest, ATiedHeadMayBeInTheFile) {
  TensorList whole = tensors_of_model();
  whole.emplace_back("lm_head.weight", whole[0].second);
  write(whole);
  expect_loads(HfDirectory(folder_.path()), whole);
}

TEST_F(HfDirectoryTest, AHeadOfItsOwnIsAParameterLikeOthers) {
  TensorList whole = tensors_of_model();
  whole.emplace_back("lm_head.weight", at::randn({9, 4}));
  write(whole);
  std::vector<NamedShard> shards = shards_of_model(0, 1);
  shards.push_back({"lm_head.weight", at::empty({9, 4}), {.shape = {9, 4}, .dim = {}, .layout = {}, .part = 0}});
  HfDirectory(folder_.path()).load(shards);
  EXPECT_TRUE(at::equal(shards[4].tensor, whole[4].second));
}

TEST_F(HfDirectoryTest, AHeadThatIsNotTiedIsAnError) {
  TensorList whole = tensors_of_model();
  at::Tensor other = whole[0].second.clone();
  other[8][3] += 1;  // in the last row: of rank 1, and every rank must say so
  for (const at::Tensor& head : {other, whole[0].second.narrow(0, 0, 8), whole[0].second.to(at::kHalf)}) {
    TensorList with_head = whole;
    with_head.emplace_back("lm_head.weight", head);
    write(with_head);
    EXPECT_PRED_FORMAT2(IsSubstring, "is not tied: \"lm_head.weight\" differs", load_error());
    const HfDirectory directory(folder_.path());
    EXPECT_PRED_FORMAT2(IsSubstring, "is not tied", value_error([&] { directory.load(shards_of_model(0, 2)); }));
  }
}

TEST_F(HfDirectoryTest, TensorsThatDoNotFitAreErrors) {
  const TensorList whole = tensors_of_model();

  write({whole[0], whole[1], whole[3]});
  EXPECT_PRED_FORMAT2(IsSubstring, "lacks the tensor \"" + kColumns + "\" that", load_error());

  write({whole[0]});
  EXPECT_PRED_FORMAT2(IsSubstring, "lacks the tensor \"" + kRows + "\" and 2 more", load_error());

  TensorList changed = whole;
  changed.emplace_back("model.decoder.extra", at::ones({1}));
  write(changed);
  EXPECT_PRED_FORMAT2(IsSubstring, "has the tensor \"model.decoder.extra\" that", load_error());
  changed.emplace_back("model.decoder.second", at::ones({1}));
  write(changed);
  EXPECT_PRED_FORMAT2(IsSubstring, "\"model.decoder.extra\" and 1 more that", load_error());

  changed = whole;
  changed[1].first = "model.decoder.layers.0.linear1.weight";
  write(changed);
  EXPECT_PRED_FORMAT2(IsSubstring, "lacks the tensor \"" + kRows + "\"", load_error());
  EXPECT_PRED_FORMAT2(IsSubstring, "has the unknown \"model.decoder.layers.0.linear1.weight\"", load_error());

  changed = whole;
  changed[2].second = at::ones({7, 4});
  write(changed);
  EXPECT_PRED_FORMAT2(IsSubstring, "has the tensor \"" + kColumns + "\" of shape [7, 4], but the model needs [4, 7]",
                      load_error());

  changed = whole;
  changed[3].second = at::ones({4}, at::kLong);
  write(changed);
  EXPECT_PRED_FORMAT2(IsSubstring, "\"" + kBias + "\" of dtype I64", load_error());

  changed = whole;
  changed.emplace_back(kBias.substr(6), at::ones({4}));
  write(changed);
  EXPECT_PRED_FORMAT2(IsSubstring, "has the tensor \"" + kBias + "\" twice, with and without", open_error());

  write({{"transformer.wte.weight", at::ones({9, 4})}, {"lm_head.weight", at::ones({9, 4})}});
  EXPECT_PRED_FORMAT2(IsSubstring, "holds no OPT model: none of its 2 tensors", load_error());
}

TEST_F(HfDirectoryTest, WhatIsNoModelDirectoryIsAnError) {
  EXPECT_PRED_FORMAT2(IsSubstring, "has no weights: neither model.safetensors nor pytorch_model.bin", open_error());
  write_bytes(folder_ / "model.safetensors", "half a fi");
  EXPECT_PRED_FORMAT2(IsSubstring, "cannot read " + (folder_ / "model.safetensors").string(), open_error());
  EXPECT_PRED_FORMAT2(IsSubstring, "missing: No such file", value_error([&] { HfDirectory dir(folder_ / "missing"); }));
}

TEST_F(HfDirectoryTest, AWrongIndexIsAnError) {
  const TensorList whole = tensors_of_model();
  const std::string good = write_two_shards(whole);
  const auto error_with = [&](const std::string& json) {
    write_index(json);
    return open_error();
  };
  // `good` with the first `from` after the metadata replaced.
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string json = good;
    return json.replace(json.find(from, json.find("weight_map")), from.size(), to);
  };
  const std::string first = "model-00001-of-00002.safetensors";

  for (const std::string name : {"../outside.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\u0000b"}) {
    EXPECT_PRED_FORMAT2(IsSubstring, "which is not a plain file name inside the folder",
                        error_with(changed(first, name)))
        << name;
  }

  EXPECT_PRED_FORMAT2(IsSubstring, "has no file \"gone.safetensors\", which its index names for tensor \"" + kEmbedding,
                      error_with(changed(first, "gone.safetensors")));
  EXPECT_PRED_FORMAT2(IsSubstring, "00002-of-00002.safetensors has no tensor \"" + kEmbedding + "\", which",
                      error_with(changed(first, "model-00002-of-00002.safetensors")));
  EXPECT_PRED_FORMAT2(IsSubstring, "has no tensor \"model.decoder.misnamed\"",
                      error_with(changed(kEmbedding, "model.decoder.misnamed")));
  EXPECT_PRED_FORMAT2(IsSubstring, "has the tensor \"" + kEmbedding + "\", which",
                      error_with(changed("\"" + kEmbedding + "\": \"" + first + "\", ", "")));
  EXPECT_PRED_FORMAT2(IsSubstring, "has \"" + kEmbedding + "\" twice", error_with(changed(kRows, kEmbedding)));
  EXPECT_PRED_FORMAT2(IsSubstring, "maps \"" + kEmbedding + "\" to something that is not a string",
                      error_with(changed("\"" + first + "\"", "1")));
  EXPECT_PRED_FORMAT2(IsSubstring, "has no \"weight_map\"", error_with("{}"));
  EXPECT_PRED_FORMAT2(IsSubstring, "has no \"weight_map\"", error_with(R"({"weight_map": {}})"));
  EXPECT_PRED_FORMAT2(IsSubstring, "has no \"weight_map\"", error_with("[]"));
  EXPECT_PRED_FORMAT2(IsSubstring, "not valid JSON at byte", error_with(good.substr(0, good.size() - 1)));
  EXPECT_PRED_FORMAT2(IsSubstring, "nests more than 8 levels deep", error_with(std::string(1'000'000, '[')));
}

TEST_F(HfDirectoryTest, ATensorInTwoShardsIsAnError) {
  const TensorList whole = tensors_of_model();
  write_two_shards(whole);
  write({whole[0], whole[2], whole[3]}, "model-00002-of-00002.safetensors");
  EXPECT_PRED_FORMAT2(IsSubstring, "00002-of-00002.safetensors has the tensor \"" + kEmbedding + "\", which",
                      open_error());
}

}  // namespace
}  // namespace optp

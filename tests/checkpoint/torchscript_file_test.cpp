// TorchScript files read back: what optp wrote, and what lies about it.
#include "src/checkpoint/torchscript_file.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/checkpoint/model_source.h"
#include "src/checkpoint/torchscript_export.h"
#include "tests/checkpoint/checkpoint_files.h"
#include "tests/checkpoint/torch_bytes.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using NamedTensorList = std::vector<std::pair<std::string, at::Tensor>>;

NamedTensorList tensors_of(const OptForCausalLM& model) {
  NamedTensorList tensors;
  for (const NamedShard& entry : named_shards(*model)) tensors.emplace_back(entry.name, entry.tensor.detach());
  return tensors;
}

class TorchScriptFileTest : public ::testing::Test {
 protected:
  // Exports a recorded model and returns its configuration.
  OptConfig export_model(const std::string& name, at::ScalarType type = at::kFloat) {
    const ModelSource source = find_model((fs::path(OPTP_GOLDEN) / name).string());
    OptForCausalLM model(source.config, Mesh());
    source.load_weights(named_shards(*model), 0);
    written_ = tensors_of(model);
    for (auto& entry : written_) entry.second = entry.second.to(type);
    write_torchscript(path_, source.config, written_);
    return source.config;
  }

  std::string error_of_file(const std::string& bytes) {
    write_bytes(folder_ / "damaged.pt", bytes);
    return value_error([&] { TorchScriptFile file(folder_ / "damaged.pt"); });
  }

  // An archive as TorchScript lays it out, around a pickle.
  std::string error_of_pickle(const std::string& pickle) {
    return error_of_file(
        zip_bytes({{"m/data.pkl", pickle}, {"m/constants.pkl", ""}, {"m/data/0", std::string(48, 1)}}));
  }

  TemporaryFolder folder_;
  fs::path path_ = folder_ / "model.pt";
  NamedTensorList written_;
};

TEST_F(TorchScriptFileTest, GivesBackEveryConfigurationAndEveryBit) {
  for (const char* name : {"base", "opt-350m", "galactica", "untied", "no-final-layer-norm", "projections", "no-bias",
                           "no-affine-layer-norm", "post-layer-norm", "gelu"}) {
    SCOPED_TRACE(name);
    const OptConfig config = export_model(name);
    const ModelSource source = find_model(path_.string());
    EXPECT_EQ(source.config, config);
    for (const int64_t tp : {1, 2, 3}) {
      testing::run_ranks(tp, [&](const Mesh& mesh) {
        OptForCausalLM model(config, mesh);
        const auto shards = named_shards(*model);
        source.load_weights(shards, 0);
        for (size_t i = 0; i < shards.size(); ++i) {
          EXPECT_EQ(shards[i].name, written_[i].first);
          EXPECT_TRUE(at::equal(shards[i].tensor, shards[i].shard.slice(written_[i].second))) << shards[i].name;
        }
      });
    }
  }
}

TEST_F(TorchScriptFileTest, AnotherRoundChangesNothing) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const OptConfig config = export_model("opt-350m", type);
    const TorchScriptFile first(path_);
    NamedTensorList again;
    for (const std::string& name : first.names()) again.emplace_back(name, first.read(name));
    write_torchscript(folder_ / "again.pt", config, again);
    const TorchScriptFile second(folder_ / "again.pt");
    EXPECT_EQ(second.names(), first.names());
    EXPECT_EQ(second.config(), first.config());
    for (const std::string& name : first.names()) {
      EXPECT_EQ(first.dtype(name), type);
      EXPECT_TRUE(same_content(first.tensor(name), second.tensor(name))) << name;
    }
  }
}

TEST_F(TorchScriptFileTest, EveryTruncationIsASentence) {
  export_model("base");
  const std::string bytes = read_bytes(path_);
  for (size_t size = 4; size < bytes.size(); size += 97) {
    EXPECT_THAT(error_of_file(bytes.substr(0, size)), HasSubstr("cannot read")) << size;
  }
}

// Whatever byte of the archive is damaged: an error in one sentence, or a file that reads.
TEST_F(TorchScriptFileTest, ADamagedByteNeverEndsTheProcess) {
  export_model("base");
  const std::string good = read_bytes(path_);
  for (size_t i = 0; i < good.size(); i += 61) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x5A);
    write_bytes(folder_ / "damaged.pt", bytes);
    try {
      const TorchScriptFile file(folder_ / "damaged.pt");
      for (const std::string& name : file.names()) file.read(name);
    } catch (const c10::ValueError& error) {
      EXPECT_EQ(std::string(error.what_without_backtrace()).find('\n'), std::string::npos);
    }
  }
}

TEST_F(TorchScriptFileTest, OthersFilesAreRefused) {
  torch::jit::Module other("Other");
  other.register_parameter("weight", at::ones({2, 3}), false);
  other.define("def forward(self, x: Tensor) -> Tensor:\n    return x + self.weight\n");
  other.save(path_.string());
  EXPECT_THAT(value_error([&] { find_model(path_.string()); }), HasSubstr("optp did not write this TorchScript file"));
  write_bytes(folder_ / "text.pt", "this is no archive");
  EXPECT_THAT(value_error([&] { find_model((folder_ / "text.pt").string()); }), HasSubstr("is no model"));
}

TEST_F(TorchScriptFileTest, HostilePicklesAreRefused) {
  using pickled::function;
  using pickled::integer;
  using pickled::tensor;
  using pickled::text;
  const std::string head = "\x80\x02";
  const std::string object = function("__torch__", "M") + ")\x81";
  const std::string ours = text("format") + text("optp-torchscript");
  const std::string version = text("version") + integer(1);
  const std::string config = text("config") + text("{}");
  const auto module = [&](const std::string& attributes) { return head + object + "}(" + attributes + "ub."; };

  EXPECT_THAT(error_of_pickle(module("")), HasSubstr("optp did not write this TorchScript file"));
  EXPECT_THAT(error_of_pickle(module(ours)), HasSubstr("does not say which version it has"));
  EXPECT_THAT(error_of_pickle(module(ours + text("version") + integer(2) + config)), HasSubstr("it has version 2"));
  EXPECT_THAT(error_of_pickle(module(ours + text("version") + text("1") + config)),
              HasSubstr("in place of the version"));
  EXPECT_THAT(error_of_pickle(module(ours + version)), HasSubstr("has no configuration"));
  EXPECT_THAT(error_of_pickle(module(ours + version + text("config") + text("{"))), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of_pickle(head + function("os", "system") + ")\x81."), HasSubstr("\"os.system\""));
  EXPECT_THAT(error_of_pickle(head + function("torch.nn", "Module") + ")\x81."), HasSubstr("\"torch.nn.Module\""));
  EXPECT_THAT(error_of_pickle(head + function("__torch__evil", "M") + ")\x81."), HasSubstr("\"__torch__evil.M\""));
  EXPECT_THAT(error_of_pickle(head + function("__torch__", "M") + "(" + text("x") + "t\x81."),
              HasSubstr("with 1 arguments"));
  EXPECT_THAT(error_of_pickle(head + function("__torch__", "M\x1b[31m") + ")R."),
              HasSubstr("calls \"__torch__.M?[31m\" with 0 arguments"));
  EXPECT_THAT(error_of_pickle(head + "K\x01."), HasSubstr("not a module"));
  EXPECT_THAT(error_of_pickle(module(ours + version + config + integer(3) + integer(4))),
              HasSubstr("in place of an attribute's name"));
  // A tensor beyond its storage, one whose storage is not there, one name twice.
  const std::string good = tensor(pickled::storage(12), 0, {3, 4}, {4, 1});
  EXPECT_THAT(
      error_of_pickle(module(ours + version + config + text("w") + tensor(pickled::storage(12), 1, {3, 4}, {4, 1}))),
      HasSubstr("offset 1 in a storage of 12 elements"));
  EXPECT_THAT(error_of_pickle(module(ours + version + config + text("w") +
                                     tensor(pickled::storage(12, "FloatStorage", "9"), 0, {3, 4}, {4, 1}))),
              HasSubstr("has no entry \"data/9\""));
  EXPECT_THAT(error_of_pickle(module(ours + version + config + text("w") + good + text("w") + good)),
              HasSubstr("the tensor \"w\" twice"));
  // A module that holds itself, and one that is its own attributes.
  EXPECT_THAT(error_of_pickle(head + object + "q\x05}(" + ours + version + config + text("m") + "h\x05ub."),
              HasSubstr("twice"));
  EXPECT_THAT(error_of_pickle(head + object + "q\x05h\x05" + "b."), HasSubstr("optp did not write"));
}

TEST_F(TorchScriptFileTest, WeightsOfAnotherModelAreNamed) {
  const OptConfig config = export_model("base");
  const auto error_for = [&](const OptConfig& other) {
    const OptForCausalLM model(other, Mesh());
    return value_error([&] { torchscript_weights(path_)->load(named_shards(*model)); });
  };
  EXPECT_THAT(error_for(OptConfig(config).tie_word_embeddings(false)),
              HasSubstr("lacks the tensor \"lm_head.weight\""));
  EXPECT_THAT(error_for(OptConfig(config).num_hidden_layers(1)), HasSubstr("has no place for"));
  EXPECT_THAT(error_for(OptConfig(config).ffn_dim(7)), HasSubstr("but the model needs"));
}

}  // namespace
}  // namespace optp

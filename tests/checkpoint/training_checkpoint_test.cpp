// Training checkpoints: what one mesh has written, another reads bit for bit; listing and removing them.
#include "src/checkpoint/training_checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/checkpoint/model_source.h"
#include "tests/checkpoint/checkpoint_files.h"
#include "tests/checkpoint/sharded_content.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using ::testing::IsSubstring;
using testing::run_ranks;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

class TrainingCheckpointTest : public ::testing::Test {
 protected:
  void write(int64_t step, const fs::path& folder) const {
    write_training_checkpoint(folder / checkpoint_name(step), content_of(step), Mesh());
  }

  TemporaryFolder folder_;
};

class TrainingCheckpointFrom : public ::testing::TestWithParam<int64_t> {};

TEST_P(TrainingCheckpointFrom, EveryDegreeReadsItBitForBit) {
  const TemporaryFolder folder;
  const int64_t from = GetParam();
  for (const int64_t dp : {1, 2}) {
    const fs::path path = folder / ("dp" + std::to_string(dp));
    run_ranks(from, dp, [&](const Mesh& mesh) { write_training_checkpoint(path, content_of(dp, mesh), mesh); });
    EXPECT_EQ(names_in(path).size(), 2 * from + 1);
    for (const int64_t tp : {1, 2, 3, 4}) {
      SCOPED_TRACE("dp " + std::to_string(dp) + " to tp " + std::to_string(tp));
      run_ranks(tp, 3 - dp, [&](const Mesh& mesh) { EXPECT_EQ(testing::difference_from(path, dp, mesh), ""); });
    }
    const TrainingCheckpoint checkpoint(path);
    EXPECT_EQ(checkpoint.tp(), from);
    EXPECT_EQ(checkpoint.dp(), dp);
    EXPECT_TRUE(checkpoint.has_optimizer_state());
  }
}

INSTANTIATE_TEST_SUITE_P(Tp, TrainingCheckpointFrom, ::testing::Values(1, 2, 3, 4));

// Every switch of the configuration, as its model cuts its parameters.
TEST(TrainingCheckpointOpt, EveryConfigurationMovesBetweenDegrees) {
  const auto weights = [](const OptForCausalLM& model, double factor) {
    std::vector<NamedShard> shards = named_shards(*model);
    for (NamedShard& shard : shards) shard.tensor = shard.tensor.detach() * factor;
    return shards;
  };
  for (const auto& golden : fs::directory_iterator(OPTP_GOLDEN)) {
    if (!fs::exists(golden.path() / "config.json")) continue;  // values of something else
    const ModelSource source = find_model(golden.path().string());
    for (const auto& [from, to] : {std::pair{1, 4}, {3, 2}, {4, 3}}) {
      SCOPED_TRACE(golden.path().filename().string() + " " + std::to_string(from) + " to " + std::to_string(to));
      const TemporaryFolder folder;
      run_ranks(from, [&](const Mesh& mesh) {
        OptForCausalLM model(source.config, mesh);
        source.load_weights(named_shards(*model), 0);
        const CheckpointContent content{source.config.to_json(), named_shards(*model), weights(model, 2), ""};
        write_training_checkpoint(folder / "checkpoint", content, mesh);
      });
      run_ranks(to, [&](const Mesh& mesh) {
        const TrainingCheckpoint checkpoint(folder / "checkpoint", mesh);
        const OptConfig config = OptConfig::from_json(checkpoint.model_config(), "checkpoint");
        EXPECT_EQ(config.to_json(), source.config.to_json());
        OptForCausalLM expected(source.config, mesh);
        source.load_weights(named_shards(*expected), 0);
        OptForCausalLM loaded(config, mesh);
        checkpoint.load_parameters(named_shards(*loaded));
        EXPECT_EQ(testing::difference(weights(loaded, 1), weights(expected, 1)), "");
        auto state = weights(loaded, 0);
        checkpoint.load_optimizer_state(state);
        EXPECT_EQ(testing::difference(state, weights(expected, 2)), "");
      });
    }
  }
}

TEST_F(TrainingCheckpointTest, KeepsTheTexts) {
  CheckpointContent content = content_of(1);
  content.trainer_state =
      R"({"step": 18446744073709551615, "lr": 0.1, "tiny": 5e-324, "name": "a\n\u00e9", "none": null})";
  write_training_checkpoint(folder_ / "a", content, Mesh());
  const TrainingCheckpoint checkpoint(folder_ / "a");
  EXPECT_EQ(nlohmann::json::parse(checkpoint.trainer_state()), nlohmann::json::parse(content.trainer_state));
  EXPECT_EQ(nlohmann::json::parse(checkpoint.model_config()), nlohmann::json::parse(content.model_config));

  write_training_checkpoint(folder_ / "b", {"", content.parameters, {}, ""}, Mesh());
  const TrainingCheckpoint empty(folder_ / "b/");
  EXPECT_EQ(empty.path(), folder_ / "b");
  EXPECT_EQ(empty.model_config() + empty.trainer_state(), "");
  EXPECT_FALSE(empty.has_optimizer_state());
  empty.load_optimizer_state({});
  EXPECT_TRUE(TrainingCheckpoint::recognises(folder_ / "b"));
  EXPECT_FALSE(TrainingCheckpoint::recognises(folder_.path()));
}

TEST_F(TrainingCheckpointTest, ConvertsFloatingPointNumbers) {
  at::Tensor values = at::randn({70, 1000});
  const auto shards = [&](at::ScalarType dtype, int64_t part, int64_t parts) {
    return testing::cut({{"weight", values.to(dtype), 1}, {"bias", values[0].to(dtype), 0}}, part, parts);
  };
  write_training_checkpoint(folder_ / "a", {"", shards(at::kFloat, 0, 1), {}, ""}, Mesh());
  for (const auto dtype : {at::kDouble, at::kBFloat16, at::kHalf}) {
    const auto loaded = testing::cut_empty({{"weight", values.to(dtype), 1}, {"bias", values[0].to(dtype), 0}}, 1, 3);
    TrainingCheckpoint(folder_ / "a").load_parameters(loaded);
    EXPECT_EQ(testing::difference(loaded, shards(dtype, 1, 3)), "");
  }
  const auto integers = testing::cut_empty({{"weight", values.to(at::kLong), 1}, {"bias", values[0], 0}}, 0, 1);
  const std::string message = value_error([&] { TrainingCheckpoint(folder_ / "a").load_parameters(integers); });
  EXPECT_PRED_FORMAT2(IsSubstring, "does not convert", message);
}

TEST_F(TrainingCheckpointTest, OneProcessWritesTheFilesOfManyRanks) {
  const auto whole = testing::whole_parameters(5);
  int64_t read = 0;
  const CheckpointSource source{
      R"({"model_type": "other"})", testing::cut(whole, 0, 3),
      [&](const std::string& name) {
        return std::find_if(whole.begin(), whole.end(), [&](const auto& w) { return w.name == name; })
            ->tensor.scalar_type();
      },
      [&](const NamedShard& shard) {
        const auto found =
            std::find_if(whole.begin(), whole.end(), [&](const auto& w) { return w.name == shard.name; });
        shard.tensor.copy_(shard.shard.slice(found->tensor));
        ++read;
      }};
  write_training_checkpoint(folder_ / "one", source, 3);
  EXPECT_EQ(read, 3 * 7 + 3);
  run_ranks(3, [&](const Mesh& mesh) {
    CheckpointContent content = content_of(5, mesh);
    content.optimizer_state.clear();
    content.trainer_state.clear();
    write_training_checkpoint(folder_ / "ranks", content, mesh);
  });
  EXPECT_EQ(names_in(folder_ / "one"), names_in(folder_ / "ranks"));
  for (const std::string& name : names_in(folder_ / "one")) {
    EXPECT_EQ(read_bytes(folder_ / "one" / name), read_bytes(folder_ / "ranks" / name)) << name;
  }
  EXPECT_PRED_FORMAT2(IsSubstring, "is cut into 3 parts, not into 2",
                      value_error([&] { write_training_checkpoint(folder_ / "two", source, 2); }));
}

TEST_F(TrainingCheckpointTest, IsForThisUserAlone) {
  const mode_t before = ::umask(0);
  write(1, folder_ / "made");
  ::umask(before);
  const auto mode = [](const fs::path& path) { return static_cast<unsigned>(fs::status(path).permissions()); };
  EXPECT_EQ(mode(folder_ / "made" / "step-00000001"), 0700U);
  for (const auto& entry : fs::directory_iterator(folder_ / "made" / "step-00000001")) {
    EXPECT_EQ(mode(entry.path()), 0600U) << entry.path();
  }
}

TEST_F(TrainingCheckpointTest, ReplacesACheckpointAndNothingElse) {
  write(1, folder_.path());
  write_training_checkpoint(folder_ / "step-00000001/", content_of(2), Mesh());
  EXPECT_EQ(testing::difference_from(folder_ / "step-00000001", 2), "");
  EXPECT_EQ(names_in(folder_.path()), std::set<std::string>{"step-00000001"});

  fs::create_directory(folder_ / "empty");
  write_training_checkpoint(folder_ / "empty", content_of(3), Mesh());
  EXPECT_EQ(testing::difference_from(folder_ / "empty", 3), "");

  fs::create_directory(folder_ / "other");
  write_bytes(folder_ / "other" / "thesis.txt", "precious");
  write_bytes(folder_ / "file", "precious");
  for (const char* name : {"other", "file", "file/inside"}) {
    const std::string message = value_error([&] { write_training_checkpoint(folder_ / name, content_of(4), Mesh()); });
    EXPECT_PRED_FORMAT2(IsSubstring, (folder_ / name).string(), message);
  }
  EXPECT_EQ(read_bytes(folder_ / "other" / "thesis.txt"), "precious");
  EXPECT_EQ(names_in(folder_.path()), (std::set<std::string>{"step-00000001", "empty", "other", "file"}));
}

TEST_F(TrainingCheckpointTest, RefusesWhatDoesNotFitTheMesh) {
  const auto error_of = [&](const CheckpointContent& content, const Mesh& mesh = Mesh()) {
    const std::string message = value_error([&] { write_training_checkpoint(folder_ / "a", content, mesh); });
    EXPECT_TRUE(fs::is_empty(folder_.path()));
    return message;
  };
  CheckpointContent content = content_of(1);
  content.parameters[0].tensor = content.parameters[0].tensor.narrow(0, 0, 3);
  EXPECT_PRED_FORMAT2(IsSubstring, "\"embedding\" does not have the shape [11, 6]", error_of(content));
  content = content_of(1);
  content.parameters.push_back(content.parameters[0]);
  EXPECT_PRED_FORMAT2(IsSubstring, "the name \"embedding\" is taken", error_of(content));
  content = content_of(1);
  content.parameters[0].tensor = at::zeros({11, 6}, at::kComplexFloat);
  EXPECT_PRED_FORMAT2(IsSubstring, "dtype ComplexFloat, which is not written", error_of(content));
  content = content_of(1);
  content.parameters = testing::cut(testing::whole_parameters(1), 1, 2);
  EXPECT_PRED_FORMAT2(IsSubstring, "is part 1 of 2, which does not belong to tensor-parallel rank 0 of 1",
                      error_of(content));
  for (std::string CheckpointContent::* text : {&CheckpointContent::model_config, &CheckpointContent::trainer_state}) {
    content = content_of(1);
    content.*text = "{\"step\": ";
    EXPECT_PRED_FORMAT2(IsSubstring, "must be JSON, and this is not: \"{\"step\": \"", error_of(content));
  }
  run_ranks(2, [&](const Mesh& mesh) {
    CheckpointContent unequal = content_of(1, mesh);
    if (mesh.world().rank() == 1) unequal.parameters.pop_back();
    EXPECT_PRED_FORMAT2(IsSubstring, "rank 1 has other tensors than rank 0", error_of(unequal, mesh));
  });
  run_ranks(2, [&](const Mesh& mesh) {
    CheckpointContent undefined = content_of(1, mesh);
    if (mesh.world().rank() == 1) undefined.parameters[2].tensor = at::Tensor();
    EXPECT_PRED_FORMAT2(IsSubstring, "on rank 1: tensor \"layers.0.columns\"", error_of(undefined, mesh));
  });
}

TEST_F(TrainingCheckpointTest, RefusesAnotherModel) {
  write(1, folder_.path());
  const auto error_with = [&](const std::vector<testing::WholeTensor>& whole) {
    const auto shards = testing::cut_empty(whole, 0, 1);
    const std::string message =
        value_error([&] { TrainingCheckpoint(folder_ / "step-00000001").load_parameters(shards); });
    for (const NamedShard& shard : shards) EXPECT_TRUE(shard.tensor.eq(1).all().item<bool>()) << shard.name;
    EXPECT_PRED_FORMAT2(IsSubstring, (folder_ / "step-00000001").string() + " belongs to another model", message);
    return message;
  };
  auto whole = testing::whole_parameters(1);
  whole.pop_back();
  whole.pop_back();
  EXPECT_PRED_FORMAT2(IsSubstring, "it has the parameter \"nothing\" and 1 more that is not wanted", error_with(whole));
  whole = testing::whole_parameters(1);
  whole.push_back({"extra", at::ones({1}), std::nullopt});
  EXPECT_PRED_FORMAT2(IsSubstring, "it lacks the parameter \"extra\"", error_with(whole));
  whole = testing::whole_parameters(1);
  whole[0].tensor = at::ones({12, 6});
  EXPECT_PRED_FORMAT2(IsSubstring, "\"embedding\" has the shape [11, 6], not [12, 6]", error_with(whole));
}

TEST_F(TrainingCheckpointTest, ListsNewestFirst) {
  EXPECT_EQ(checkpoint_name(100), "step-00000100");
  EXPECT_TRUE(whole_checkpoints(folder_ / "none").empty());
  for (const int64_t step : {100, 99, 123456789, 2}) write(step, folder_.path());
  for (const char* name : {"step-5", "step-00000005x", "step-", "step--0000005", "other", ".step-00000007.partial"}) {
    fs::create_directory(folder_ / name);
  }
  write_bytes(folder_ / "step-00000006", "a file");
  std::vector<std::string> names;
  for (const fs::path& path : whole_checkpoints(folder_.path())) names.push_back(path.filename());
  EXPECT_EQ(names, (std::vector<std::string>{"step-123456789", "step-00000100", "step-00000099", "step-00000002"}));
}

TEST_F(TrainingCheckpointTest, KeepsTheLast) {
  for (const int64_t step : {1, 2, 3, 4, 5}) write(step, folder_.path());
  fs::create_directory(folder_ / ".step-00000009.partial");
  write_bytes(folder_ / ".step-00000009.partial" / "parameters", "half");
  fs::create_directory(folder_ / ".hidden");
  remove_old_checkpoints(folder_.path(), 3);
  EXPECT_EQ(names_in(folder_.path()),
            (std::set<std::string>{"step-00000003", "step-00000004", "step-00000005", ".hidden"}));

  // The newest whole one stays, even if it is none of the last.
  for (const int64_t step : {4, 5})
    fs::remove(folder_ / checkpoint_name(step) / "parameters-00000-of-00001.safetensors");
  write(2, folder_.path());
  remove_old_checkpoints(folder_.path(), 1);
  EXPECT_EQ(names_in(folder_.path()), (std::set<std::string>{"step-00000003", "step-00000005", ".hidden"}));
  EXPECT_EQ(testing::difference_from(folder_ / "step-00000003", 3), "");
  EXPECT_PRED_FORMAT2(IsSubstring, "at least one checkpoint must be kept, not 0",
                      value_error([&] { remove_old_checkpoints(folder_.path(), 0); }));
}

}  // namespace
}  // namespace optp

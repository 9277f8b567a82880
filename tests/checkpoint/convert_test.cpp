// Conversions: every configuration through every form of storage and back, at every degree, bit for bit.
#include "src/checkpoint/convert.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>

#include "src/checkpoint/model_parameters.h"
#include "tests/checkpoint/checkpoint_files.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using ::testing::IsSubstring;

std::vector<std::string> golden_models() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(OPTP_GOLDEN)) {
    if (fs::exists(entry.path() / "config.json")) names.push_back(entry.path().filename());
  }
  return names;
}

// The parameters that tensor-parallel rank `rank` of `tp` loads, as they are stored.
std::vector<NamedShard> load(const ModelSource& source, int64_t tp = 1, int64_t rank = 0) {
  const auto weights = source.open(0);
  std::vector<NamedShard> parameters = model_parameters(source.config, tp, rank);
  for (NamedShard& parameter : parameters) {
    parameter.tensor = at::empty(parameter.shard.local_shape(), weights->dtype(parameter.name));
  }
  weights->load(parameters);
  return parameters;
}

void expect_same_bytes(const std::vector<NamedShard>& actual, const std::vector<NamedShard>& whole) {
  ASSERT_EQ(actual.size(), whole.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    const at::Tensor expected = actual[i].shard.slice(whole[i].tensor).contiguous();
    ASSERT_EQ(actual[i].tensor.sizes(), expected.sizes()) << whole[i].name;
    ASSERT_EQ(actual[i].tensor.scalar_type(), expected.scalar_type()) << whole[i].name;
    EXPECT_EQ(std::memcmp(actual[i].tensor.const_data_ptr(), expected.const_data_ptr(), expected.nbytes()), 0)
        << whole[i].name;
  }
}

class ConvertGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(ConvertGolden, ThroughCheckpointsOfEveryDegreeAndBack) {
  const TemporaryFolder folder;
  const ModelSource source = find_model((fs::path(OPTP_GOLDEN) / GetParam()).string());
  const std::vector<NamedShard> whole = load(source);
  for (const int64_t tp : {1, 2, 3, 4}) {
    SCOPED_TRACE("written for " + std::to_string(tp));
    const fs::path path = folder / ("checkpoint-" + std::to_string(tp));
    const ConvertedModel written = convert_to_checkpoint(source, path, tp, {});
    EXPECT_EQ(written.parameters, source.config.num_parameters());
    const ModelSource checkpoint = find_model(path.string());
    EXPECT_EQ(checkpoint.config.to_json(), source.config.to_json());
    for (const int64_t other : {1, 2, 3, 4}) {
      for (int64_t rank = 0; rank < other; ++rank) expect_same_bytes(load(checkpoint, other, rank), whole);
    }
    // From a checkpoint to one of another degree, and on to Hugging Face's layout.
    const fs::path next = folder / ("next-" + std::to_string(tp)), back = folder / ("back-" + std::to_string(tp));
    convert_to_checkpoint(checkpoint, next, 5 - tp, {});
    convert_to_hf(find_model(next.string()), back, {}, {});
    expect_same_bytes(load(find_model(back.string())), whole);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ConvertGolden, ::testing::ValuesIn(golden_models()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Convert, FreshWeightsAreThoseOfThePreset) {
  const TemporaryFolder folder;
  const ModelSource fresh{.name = "small", .config = optp::testing::small_opt(), .path = {}};
  convert_to_hf(fresh, folder / "hf", {.dtype = {}, .seed = 3}, {});
  std::vector<NamedShard> expected = load(fresh);
  fresh.load_weights(expected, 3);
  expect_same_bytes(load(find_model((folder / "hf").string())), expected);
}

TEST(Convert, TypesAreRoundedOnce) {
  const TemporaryFolder folder;
  const ModelSource source = find_model((fs::path(OPTP_GOLDEN) / "base").string());
  std::vector<NamedShard> expected = load(source);
  for (NamedShard& parameter : expected) parameter.tensor = parameter.tensor.to(at::kBFloat16);
  convert_to_checkpoint(source, folder / "checkpoint", 2, {.dtype = at::kBFloat16});
  convert_to_hf(source, folder / "hf", {.dtype = at::kBFloat16}, {});
  for (const char* name : {"checkpoint", "hf"}) {
    expect_same_bytes(load(find_model((folder / name).string())), expected);
  }
}

TEST(Convert, OverwritesNothing) {
  const TemporaryFolder folder;
  const ModelSource source = find_model((fs::path(OPTP_GOLDEN) / "base").string());
  fs::create_directory(folder / "full");
  write_bytes(folder / "full" / "mine.txt", "mine");
  const auto hf = [&] { convert_to_hf(source, folder / "full", {}, {}); };
  const auto checkpoint = [&] { convert_to_checkpoint(source, folder / "full/", 2, {}); };
  const auto torchscript = [&] { convert_to_torchscript(source, folder / "full" / "mine.txt", {}); };
  EXPECT_PRED_FORMAT2(IsSubstring, "full: it exists and is not empty", value_error(hf));
  EXPECT_PRED_FORMAT2(IsSubstring, "full: it exists and is not empty", value_error(checkpoint));
  EXPECT_PRED_FORMAT2(IsSubstring, "mine.txt: it exists; choose another name", value_error(torchscript));
  EXPECT_EQ(read_bytes(folder / "full" / "mine.txt"), "mine");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

}  // namespace
}  // namespace optp

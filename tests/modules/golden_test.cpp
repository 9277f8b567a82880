// The models against values recorded from transformers (scripts/make_golden.py): every switch of the configuration
// once. Loading goes through the same code as `optp forward`, so a mistake in the reader shows here too.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_reference.h"
#include "src/checkpoint/model_source.h"
#include "src/checkpoint/safetensors.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

// float32 models of this size; the recorded numbers are float32 too.
constexpr double kTolerance = 1e-5;

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

std::vector<std::string> golden_models() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(OPTP_GOLDEN)) {
    if (fs::exists(entry.path() / "config.json")) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Golden {
  explicit Golden(const std::string& name)
      : source(find_model((fs::path(OPTP_GOLDEN) / name).string())),
        expected((fs::path(OPTP_GOLDEN) / name / "expected.safetensors").string()),
        ids(expected.read("input_ids")),
        mask(expected.read("attention_mask")),
        labels(expected.read("labels")),
        real(mask.to(at::kBool)) {}

  void check(const at::Tensor& logits, const at::Tensor& loss) const {
    EXPECT_LT(distance(logits.index({real}), expected.read("logits").index({real})), kTolerance);
    EXPECT_LT(distance(loss, expected.read("loss")), kTolerance);
  }

  ModelSource source;
  SafetensorsFile expected;
  at::Tensor ids, mask, labels, real;
};

class GoldenModel : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenModel, ForwardBackwardReferenceEqualsTransformers) {
  const Golden golden(GetParam());
  OptReference model(golden.source.config);
  golden.source.load_weights(named_shards(*model), 0);
  const auto output = model->forward(golden.ids, golden.mask, golden.labels);
  golden.check(output.logits, output.loss);
  output.loss.backward();
  for (const auto& parameter : model->named_parameters()) {
    EXPECT_LT(distance(parameter.value().grad(), golden.expected.read("gradient." + parameter.key())), kTolerance)
        << parameter.key();
  }
}

TEST_P(GoldenModel, ForwardBackwardGradientsShardedEqualsTransformers) {
  const Golden golden(GetParam());
  for (const int64_t tp : {1, 2, 3, 4}) {
    SCOPED_TRACE("tp " + std::to_string(tp));
    testing::run_ranks(tp, [&](const Mesh& mesh) {
      OptForCausalLM model(golden.source.config, mesh);
      const auto shards = named_shards(*model);
      golden.source.load_weights(shards, 0);
      const OptOutput output = model->forward(golden.ids, {.attention_mask = golden.mask, .labels = golden.labels});
      golden.check(output.logits, output.loss);
      output.loss.backward();
      for (const NamedShard& entry : shards) {
        const at::Tensor gradient = gather_whole(entry.tensor.grad(), entry.shard, mesh.tensor(), entry.name);
        EXPECT_LT(distance(gradient, golden.expected.read("gradient." + entry.name)), kTolerance) << entry.name;
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, GoldenModel, ::testing::ValuesIn(golden_models()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace optp

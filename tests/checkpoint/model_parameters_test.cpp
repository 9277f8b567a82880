// Parameters of models that nobody has built: the same as of those that are.
#include "src/checkpoint/model_parameters.h"

#include <gtest/gtest.h>

#include "modules/opt_for_causal_lm.h"
#include "tests/support/ranks.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

TEST(ModelParameters, AreThoseOfTheModelOfEveryRank) {
  OptConfig config = testing::small_opt().word_embed_proj_dim(10).tie_word_embeddings(false);
  for (const int64_t tp : {1, 3, 4}) {
    testing::run_ranks(tp, [&](const Mesh& mesh) {
      const OptForCausalLM model(config, mesh);
      const auto expected = named_shards(*model);
      const auto actual = model_parameters(config, tp, mesh.tensor().rank());
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(actual[i].name, expected[i].name);
        EXPECT_EQ(actual[i].shard.shape, expected[i].shard.shape);
        EXPECT_EQ(actual[i].shard.dim, expected[i].shard.dim);
        EXPECT_EQ(actual[i].shard.range(), expected[i].shard.range());
        EXPECT_EQ(actual[i].shard.local_shape(), expected[i].tensor.sizes());
      }
    });
  }
}

TEST(ModelParameters, NeedNoMemory) {
  int64_t parameters = 0;
  for (const NamedShard& parameter : model_parameters(OptConfig::opt_175b())) {
    parameters += c10::multiply_integers(parameter.shard.shape);
  }
  EXPECT_EQ(parameters, OptConfig::opt_175b().num_parameters());
}

TEST(ModelParameters, UnconnectedRanksCannotTalk) {
  const Mesh mesh = Mesh::unconnected(2, 1);
  EXPECT_EQ(mesh.tensor().size(), 2);
  EXPECT_EQ(mesh.data().size(), 1);
  EXPECT_THROW(mesh.world().barrier("test"), c10::Error);
  EXPECT_THROW(Mesh::unconnected(2, 2), c10::ValueError);
}

}  // namespace
}  // namespace optp

// The C++ that the README shows, compiled and run.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_init.h"
#include "modules/opt_reference.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

TEST(Readme, ForwardBackwardFromCpp) {
  testing::run_ranks(2, [](const Mesh& mesh) {
    auto config = OptConfig::opt_125m().vocab_size(50257).num_hidden_layers(1).hidden_size(48).ffn_dim(192);

    OptForCausalLM model(config, mesh);  // this rank's shards
    initialize(named_shards(*model), config, /*seed=*/0);

    at::Tensor ids = at::randint(config.vocab_size(), {2, 16}, at::kLong);
    if (mesh.tensor().size() > 1) mesh.tensor().broadcast_(ids, 0, "example");
    OptOutput output = model->forward(ids, {.labels = ids});
    output.loss.backward();
    EXPECT_EQ(output.logits.sizes(), (at::IntArrayRef{2, 16, 50257}));
    EXPECT_TRUE(model->decoder->embed_tokens->weight.grad().defined());

    OptReference whole(config);  // a model that exists whole ...
    initialize(named_shards(*whole), config, /*seed=*/0);
    OptForCausalLM sharded = shard(whole, mesh);  // ... and the shards of it
    EXPECT_TRUE(sharded->decoder->embed_tokens->weight.equal(model->decoder->embed_tokens->weight));
  });
}

}  // namespace
}  // namespace optp

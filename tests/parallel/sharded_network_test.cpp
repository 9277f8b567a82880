// A user's own network of sharded layers: it equals the whole one, can be described, filled, gathered and cloned.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/errors.h"
#include "tests/support/network.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::network_ids;
using testing::run_ranks;
using testing::same;
using testing::ShardedNetwork;
using testing::WholeNetwork;

class ShardedNetworks : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Tp, ShardedNetworks, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

// Integers up to the layer norm, so no rounding: every number must be the very same.
TEST_P(ShardedNetworks, EqualTheWholeNetworkInOutputAndEveryGradient) {
  WholeNetwork whole;
  const at::Tensor expected = whole.before_norm(network_ids());
  const at::Tensor gradient = integers(expected.sizes(), 9);
  expected.backward(gradient);
  ASSERT_GT(whole.fc1->weight.grad().ne(0).sum().item<int64_t>(), 20);
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
    copy_from_whole(named_shards(*network), whole);
    const at::Tensor output = network->before_norm(network_ids());
    EXPECT_TRUE(same(output.detach(), expected.detach()));
    output.backward(gradient);
    for (const NamedShard& entry : named_shards(*network)) {
      if (entry.name.starts_with("norm")) continue;  // not used above
      const at::Tensor whole_gradient = whole.named_parameters()[entry.name].grad();
      EXPECT_TRUE(same(entry.tensor.grad(), entry.shard.slice(whole_gradient))) << entry.name;
      EXPECT_TRUE(same(gather_whole(entry.tensor.grad(), entry.shard, mesh.tensor(), "compare"), whole_gradient));
    }
  });
}

TEST_P(ShardedNetworks, ShardsAreDescribedByNameShapeDimensionAndPart) {
  const std::map<std::string, std::pair<std::vector<int64_t>, std::optional<int64_t>>> expected = {
      {"embed.weight", {{11, 6}, 0}},    {"fc1.weight", {{7, 6}, 0}},       {"fc1.bias", {{7}, 0}},
      {"fc2.weight", {{6, 7}, 1}},       {"fc2.bias", {{6}, std::nullopt}}, {"norm.weight", {{6}, std::nullopt}},
      {"norm.bias", {{6}, std::nullopt}}};
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
    const auto shards = named_shards(*network);
    EXPECT_EQ(shards.size(), expected.size());
    for (const auto& [name, tensor, shard] : shards) {
      SCOPED_TRACE(name);
      const auto& [shape, dim] = expected.at(name);
      EXPECT_EQ(shard.shape, shape);
      EXPECT_EQ(shard.dim, dim);
      EXPECT_EQ(shard.replicated(), !dim.has_value());
      EXPECT_EQ(tensor.sizes(), shard.local_shape());
      EXPECT_TRUE(tensor.requires_grad());
      EXPECT_EQ(tensor.data_ptr(), network->named_parameters()[name].data_ptr());
      if (dim) {
        EXPECT_EQ(shard.part, mesh.tensor().rank());
      }
      EXPECT_EQ(shard.range(), dim ? ShardLayout(shape[*dim], tp).range(mesh.tensor().rank()) : Range(0, shape[0]));
    }
  });
}

TEST_P(ShardedNetworks, GatherWholeGivesBackWhatWasCopied) {
  WholeNetwork whole;
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
    copy_from_whole(named_shards(*network), whole);
    for (const NamedShard& entry : named_shards(*network)) {
      const at::Tensor gathered = gather_whole(entry.tensor, entry.shard, mesh.tensor(), "gather").detach();
      EXPECT_TRUE(same(gathered, whole.named_parameters()[entry.name].detach())) << entry.name;
    }
  });
}

TEST_P(ShardedNetworks, ACloneHasTheWeightsInMemoryOfItsOwn) {
  WholeNetwork whole;
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
    copy_from_whole(named_shards(*network), whole);
    const auto clone = std::dynamic_pointer_cast<ShardedNetwork>(network->clone());
    ASSERT_TRUE(clone);
    const auto originals = network->named_parameters();
    const auto clones = clone->named_parameters();
    ASSERT_EQ(clones.size(), originals.size());
    for (const auto& entry : clones) {
      EXPECT_TRUE(same(entry.value().detach(), originals[entry.key()].detach())) << entry.key();
      EXPECT_NE(entry.value().data_ptr(), originals[entry.key()].data_ptr()) << entry.key();
    }
    EXPECT_EQ(named_shards(*clone).size(), originals.size());
    network->fc1->weight.data().zero_();
    EXPECT_TRUE(same(clone->before_norm(network_ids()).detach(), whole.before_norm(network_ids()).detach()));
  });
}

TEST(ShardedNetworkErrors, AWholeModelThatDoesNotFitIsNamed) {
  const auto network = std::make_shared<ShardedNetwork>(ProcessGroup());
  torch::nn::Linear alone(6, 7);
  EXPECT_THAT(message_of<c10::ValueError>([&] { copy_from_whole(named_shards(*network), *alone); }),
              HasSubstr("the whole model has no parameter embed.weight"));
  const auto wrong_shape = [&](const std::string& name) {
    return name == "fc2.weight" ? integers({7, 6}) : network->named_parameters()[name].detach().clone();
  };
  EXPECT_THAT(message_of<c10::ValueError>([&] { copy_from_whole(named_shards(*network), wrong_shape); }),
              HasSubstr("parameter fc2.weight is [7, 6] in the whole model and [6, 7] in the sharded one"));
}

}  // namespace
}  // namespace optp

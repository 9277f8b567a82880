// Gradients of copies and shards, added up in buckets while backward runs, against those of one process.
#include "parallel/gradients.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/network.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

using testing::close;
using ::testing::ElementsAre;
using testing::integers;
using testing::run_ranks;
using testing::same;
using testing::ShardedNetwork;
using testing::WholeNetwork;

// 12 sequences, so that 1, 2 and 3 copies take equal parts of them in 1 or 2 micro-batches.
const at::Tensor& batch() {
  static const at::Tensor ids = at::arange(12 * 5, at::kLong).mul(7).remainder(11).view({12, 5});
  return ids;
}

// A loss that is a sum over sequences and an integer.
template <typename Network>
at::Tensor sum_loss(Network& network, int64_t first, int64_t count) {
  const at::Tensor output = network.before_norm(batch().narrow(0, first, count));
  return (output * integers({12, 5, 6}, 9).narrow(0, first, count)).sum() + network.norm->bias.sum() * count;
}

// One step's gradients of this rank's part of the batch.
GradientTotals run_step(Gradients& gradients, ShardedNetwork& network, const Mesh& mesh, int64_t micro_batches,
                        at::ArrayRef<double> sums = {}) {
  const int64_t count = batch().size(0) / mesh.data().size() / micro_batches;
  gradients.start_step();
  for (int64_t m = 0; m < micro_batches; ++m) {
    if (m + 1 == micro_batches) gradients.reduce_in_next_backward();
    sum_loss(network, (mesh.data().rank() * micro_batches + m) * count, count).backward();
  }
  return gradients.finish(sums);
}

std::shared_ptr<ShardedNetwork> make_network(const Mesh& mesh, const WholeNetwork& whole) {
  auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
  copy_from_whole(named_shards(*network), whole);
  return network;
}

struct Layout {
  int64_t tp, dp;
};

void PrintTo(const Layout& layout, std::ostream* stream) { *stream << "Tp" << layout.tp << "Dp" << layout.dp; }

class GradientsOnAMesh : public ::testing::TestWithParam<Layout> {
 protected:
  void run(const std::function<void(const Mesh&)>& body) { run_ranks(GetParam().tp, GetParam().dp, body); }
};

INSTANTIATE_TEST_SUITE_P(Meshes, GradientsOnAMesh,
                         ::testing::Values(Layout{1, 1}, Layout{2, 1}, Layout{1, 2}, Layout{2, 2}, Layout{3, 1},
                                           Layout{1, 3}),
                         ::testing::PrintToStringParamName());

// Integers: every number must be the very same on every mesh.
TEST_P(GradientsOnAMesh, EqualThoseOfOneProcessWithTheWholeBatch) {
  WholeNetwork whole;
  sum_loss(whole, 0, 12).backward();
  double square = 0;
  for (const auto& parameter : whole.parameters()) {
    if (parameter.grad().defined()) square += parameter.grad().square().sum().item<double>();
  }
  run([&](const Mesh& mesh) {
    const auto network = make_network(mesh, whole);
    for (const int64_t bucket_bytes : {1, 400, 1 << 20}) {
      for (const int64_t micro_batches : {1, 2}) {
        SCOPED_TRACE(c10::str("buckets of ", bucket_bytes, " bytes, ", micro_batches, " micro-batches"));
        Gradients gradients(named_shards(*network), mesh, {.bucket_bytes = bucket_bytes});
        for (int step = 0; step < 3; ++step) {
          const double shared = mesh.tensor().rank() == 0 ? 1.5 : 0;
          const GradientTotals totals = run_step(gradients, *network, mesh, micro_batches, {shared, 1});
          EXPECT_EQ(totals.norm, std::sqrt(square));
          EXPECT_TRUE(totals.finite);
          EXPECT_THAT(totals.sums, ElementsAre(1.5 * GetParam().dp, GetParam().tp * GetParam().dp));
          for (const TrainedParameter& entry : gradients.parameters()) {
            SCOPED_TRACE(entry.name);
            const at::Tensor expected = whole.named_parameters()[entry.name].grad();
            EXPECT_EQ(entry.has_gradient, entry.name != "norm.weight");
            EXPECT_EQ(entry.has_gradient, expected.defined());
            EXPECT_EQ(entry.parameter.grad().defined(), entry.has_gradient);
            if (!entry.has_gradient) continue;
            EXPECT_TRUE(same(entry.gradient, entry.shard.slice(expected)));
            EXPECT_EQ(entry.parameter.grad().data_ptr(), entry.gradient.data_ptr()) << "the buffer itself";
          }
        }
      }
    }
  });
}

// A replicated weight that is taken for a sharded one counts tp times; a sharded one taken for a replicated one counts
// in part.
TEST_P(GradientsOnAMesh, TheNormSeesAWeightCountedTwiceOrInPart) {
  if (GetParam().tp == 1) return;  // nothing to count twice
  WholeNetwork whole;
  run([&](const Mesh& mesh) {
    const auto network = make_network(mesh, whole);
    const auto norm_with = [&](const std::string& name, const std::optional<int64_t>& dim) {
      auto shards = named_shards(*network);
      for (NamedShard& entry : shards) {
        if (entry.name == name) entry.shard.dim = dim;
      }
      Gradients gradients(shards, mesh);
      return run_step(gradients, *network, mesh, 1).norm;
    };
    const double right = norm_with("", std::nullopt);
    // The squares are integers, so that no rounding hides a difference.
    EXPECT_GT(norm_with("norm.bias", 0), right);
    EXPECT_LT(norm_with("fc2.weight", std::nullopt), right);
  });
}

TEST_P(GradientsOnAMesh, AreFiniteOnEveryRankOrOnNone) {
  WholeNetwork whole;
  const int64_t ranks = GetParam().tp * GetParam().dp;
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (int64_t guilty = 0; guilty < ranks; ++guilty) {
      run([&](const Mesh& mesh) {
        const auto network = make_network(mesh, whole);
        const auto parameters = network->named_parameters();
        Gradients gradients(named_shards(*network), mesh);
        const bool here = mesh.world().rank() == guilty;
        // In the gradient of a sharded weight, of a replicated one, and in the loss alone.
        for (const char* name : {"fc1.weight", "fc2.bias", ""}) {
          gradients.start_step();
          gradients.reduce_in_next_backward();
          at::Tensor loss = sum_loss(*network, 0, 2);
          const at::Tensor* parameter = parameters.find(name);
          if (here && parameter) loss = loss + parameter->sum() * bad;
          loss.backward();
          EXPECT_FALSE(gradients.finish({here && !parameter ? bad : 1.0}).finite) << name << " of rank " << guilty;
        }
        EXPECT_TRUE(run_step(gradients, *network, mesh, 1, {1.0}).finite) << "the next step is a new one";
      });
    }
  }
}

TEST_P(GradientsOnAMesh, GiveTheSameBitsOnEveryCopyAndInEveryRun) {
  WholeNetwork whole;
  std::map<std::string, at::Tensor> first_run;  // by backend: each adds in an order of its own
  for (int repeat = 0; repeat < 2; ++repeat) {
    run([&](const Mesh& mesh) {
      const auto network = make_network(mesh, whole);
      Gradients gradients(named_shards(*network), mesh, {.bucket_bytes = 300});
      at::Tensor all;
      double norm = 0;
      for (int step = 0; step < 3; ++step) {
        gradients.start_step();
        gradients.reduce_in_next_backward();
        // Through the layer norm, so that the numbers are not integers.
        network->norm(network->before_norm(batch().narrow(0, 4 * mesh.data().rank(), 4))).pow(3).mean().backward();
        norm = gradients.finish().norm;
        std::vector<at::Tensor> flat;
        for (const TrainedParameter& entry : gradients.parameters()) flat.push_back(entry.gradient.flatten());
        all = at::cat(flat);
      }
      at::Tensor of_first_copy = all.clone();
      mesh.data().broadcast_(of_first_copy, 0, "compare");
      EXPECT_TRUE(same(all, of_first_copy));
      at::Tensor norm_of_first = at::scalar_tensor(norm, at::kDouble);
      mesh.world().broadcast_(norm_of_first, 0, "compare");
      EXPECT_EQ(norm, norm_of_first.item<double>());
      if (mesh.world().rank() != 0) return;
      const at::Tensor& first = first_run.try_emplace(mesh.world().backend_name(), all).first->second;
      EXPECT_TRUE(same(all, first));
    });
  }
}

// Two copies: one addition, so the bits of an all-reduce of each gradient by itself. Three copies add in another order
// where another ring does: equal to rounding.
TEST(GradientBuckets, AddUpWhatTheUnbucketedSumGives) {
  for (const auto& [tp, dp] : {Layout{1, 2}, Layout{2, 2}, Layout{1, 3}}) {
    WholeNetwork whole;
    run_ranks(tp, dp, [&, dp = dp](const Mesh& mesh) {
      const auto network = make_network(mesh, whole);
      const auto backward = [&] {
        network->norm(network->before_norm(batch().narrow(0, 4 * mesh.data().rank(), 4))).pow(3).mean().backward();
      };
      backward();
      std::vector<at::Tensor> expected;
      std::vector<double> rounding;
      for (const NamedShard& entry : named_shards(*network)) {
        at::Tensor sum = entry.tensor.grad().clone();
        at::Tensor magnitude = sum.abs();
        mesh.data().all_reduce_(sum, "unbucketed");
        mesh.data().all_reduce_(magnitude, "magnitude");
        expected.push_back(sum);
        rounding.push_back(4 * std::numeric_limits<double>::epsilon() * magnitude.max().item<double>());
      }
      Gradients gradients(named_shards(*network), mesh, {.bucket_bytes = 300});
      for (int step = 0; step < 2; ++step) {
        gradients.start_step();
        gradients.reduce_in_next_backward();
        backward();
        gradients.finish();
        for (size_t i = 0; i < expected.size(); ++i) {
          const at::Tensor& actual = gradients.parameters()[i].gradient;
          EXPECT_TRUE(dp == 2 ? same(actual, expected[i]) : close(actual, expected[i], rounding[i]));
        }
      }
    });
  }
}

TEST(GradientBuckets, AreReducedWhileBackwardStillRuns) {
  for (const auto& [tp, dp] : {Layout{1, 2}, Layout{1, 3}, Layout{2, 2}}) {
    WholeNetwork whole;
    run_ranks(tp, dp, [&](const Mesh& mesh) {
      const auto network = make_network(mesh, whole);
      Gradients gradients(named_shards(*network), mesh, {.bucket_bytes = 1});  // one parameter each
      std::vector<std::string> events;
      ProcessGroup data = mesh.data();
      data.set_hook([&](const Collective& collective) {
        events.emplace_back(collective.site);
        return true;
      });
      for (int step = 0; step < 2; ++step) {
        events.clear();
        gradients.start_step();
        gradients.reduce_in_next_backward();
        const at::Tensor embedded = network->embed(batch().narrow(0, 4 * mesh.data().rank(), 4));
        embedded.register_hook([&](const at::Tensor&) { events.emplace_back("backward reaches the embedding"); });
        network->norm(network->fc2(network->fc1(embedded).relu())).pow(3).mean().backward();
        events.emplace_back("backward has ended");
        gradients.finish();
      }
      // The four of fc2 and norm and the two of fc1 leave early; that of the embedding comes last of all.
      EXPECT_THAT(events, ElementsAre("gradients", "gradients", "gradients", "gradients", "gradients", "gradients",
                                      "backward reaches the embedding", "backward has ended", "gradients"));
      data.set_hook({});
    });
  }
}

// Runs `function` without history and again, with history, in backward: what activation checkpointing does.
struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                            const std::shared_ptr<std::function<at::Tensor(const at::Tensor&)>>& function) {
    context->save_for_backward({input});
    context->saved_data["function"] = reinterpret_cast<int64_t>(function.get());
    const at::AutoDispatchBelowADInplaceOrView guard;
    return (*function)(input);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto& function =  // NOLINTNEXTLINE(performance-no-int-to-ptr): how a context carries it
        *reinterpret_cast<std::function<at::Tensor(const at::Tensor&)>*>(context->saved_data["function"].toInt());
    const at::Tensor input = context->get_saved_variables()[0].detach().requires_grad_();
    const at::AutoGradMode with_grad(true);
    function(input).backward(gradients[0]);
    return {input.grad(), at::Tensor()};
  }
};

// A weight that backward reaches several times, each time as a gradient of its own. From the second step on the buckets
// leave during backward: the weight's must wait for its last use. In the last two steps it is used more often than ever
// before, on all copies and then on one only.
TEST(GradientBuckets, WaitForTheLastUseOfAWeight) {
  for (const int64_t dp : {1, 2, 3}) {
    run_ranks(1, dp, [&](const Mesh& mesh) {
      const auto parameter = [](int64_t start) { return integers({3, 3}, start).requires_grad_(); };
      const std::vector<NamedShard> shards = {{"below", parameter(1), {.shape = {3, 3}}},
                                              {"tied", parameter(2), {.shape = {3, 3}}},
                                              {"above", parameter(3), {.shape = {3, 3}}}};
      const auto loss_of = [&](const std::vector<at::Tensor>& weights, int64_t uses, bool again, int64_t rank) {
        const auto times_tied = std::make_shared<std::function<at::Tensor(const at::Tensor&)>>(
            [&](const at::Tensor& input) { return input.mm(weights[1]); });
        at::Tensor x = integers({2, 3}, rank).mm(weights[0]);
        for (int64_t use = 0; use < uses; ++use) x = again ? Recompute::apply(x, times_tied) : (*times_tied)(x);
        return std::pair(x.mm(weights[2]).sum(), times_tied);  // kept until after backward
      };
      Gradients gradients(shards, mesh, {.bucket_bytes = 1});
      const auto uses_on = [](int64_t step, int64_t rank) {
        return step < 3 ? 2 : step == 3 || rank == 1 ? step + 1 : 2;
      };
      for (int64_t step = 0; step < 6; ++step) {
        SCOPED_TRACE(c10::str("step ", step, " of ", dp, " copies"));
        gradients.start_step();
        gradients.reduce_in_next_backward();
        const std::vector<at::Tensor> own = {shards[0].tensor, shards[1].tensor, shards[2].tensor};
        const int64_t rank = mesh.data().rank();
        const auto [loss, kept] = loss_of(own, uses_on(step, rank), true, rank);
        loss.backward();
        EXPECT_TRUE(gradients.finish().finite);

        std::vector<at::Tensor> whole;
        for (const NamedShard& entry : shards) whole.push_back(entry.tensor.detach().clone().requires_grad_());
        for (int64_t copy = 0; copy < dp; ++copy) loss_of(whole, uses_on(step, copy), false, copy).first.backward();
        for (size_t i = 0; i < whole.size(); ++i) {
          EXPECT_TRUE(same(gradients.parameters()[i].gradient, whole[i].grad())) << shards[i].name;
        }
      }
    });
  }
}

TEST(GradientBuckets, AParameterMayGetAGradientOnSomeCopiesOrOnNone) {
  run_ranks(1, 2, [&](const Mesh& mesh) {
    std::vector<NamedShard> shards;
    for (const char* name : {"everywhere", "sometimes", "never"}) {
      shards.push_back({name, integers({4}).requires_grad_(), {.shape = {4}}});
    }
    Gradients gradients(shards, mesh, {.bucket_bytes = 1});
    const at::Tensor factor = integers({4}, 3);
    for (int64_t step = 0; step < 6; ++step) {
      SCOPED_TRACE(step);
      const int64_t copies = step % 3;  // that use the second parameter
      gradients.start_step();
      gradients.reduce_in_next_backward();
      at::Tensor loss = (shards[0].tensor * factor).sum();
      if (mesh.data().rank() < copies) loss = loss + (shards[1].tensor * factor).sum();
      loss.backward();
      const GradientTotals totals = gradients.finish();
      const auto& parameters = gradients.parameters();
      EXPECT_TRUE(same(parameters[0].gradient, factor * 2));
      EXPECT_EQ(parameters[1].has_gradient, copies > 0);
      EXPECT_EQ(shards[1].tensor.grad().defined(), copies > 0);
      EXPECT_TRUE(same(parameters[1].gradient, factor * copies));
      EXPECT_FALSE(parameters[2].has_gradient);
      EXPECT_DOUBLE_EQ(totals.norm, std::sqrt((4 + copies * copies) * factor.square().sum().item<double>()));
    }
  });
}

}  // namespace
}  // namespace optp

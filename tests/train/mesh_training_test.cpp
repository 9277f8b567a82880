// Training on a mesh against torch::optim in one process that sees the whole batch.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/train/optimizer.h"
#include "tests/support/network.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

using testing::close;
using testing::integers;
using testing::run_ranks;
using testing::ShardedNetwork;
using testing::WholeNetwork;
using Parameters = std::vector<at::Tensor>;

constexpr int64_t kSteps = 20;

// Below every norm of the run (7 to 28) in each other step, and above.
double largest_norm(int64_t step) { return step % 2 == 0 ? 1.5 : 100; }

double learning_rate(int64_t step) { return 0.02 / static_cast<double>(1 + step); }

struct TrainedWith {
  std::string name;
  OptimizerOptions options;
  std::function<std::unique_ptr<torch::optim::Optimizer>(const Parameters&)> make;
};

std::vector<TrainedWith> trained_with() {
  namespace optim = torch::optim;
  return {
      {"adamw", OptimizerOptions().weight_decay(0.1),
       [](const Parameters& all) {
         return std::make_unique<optim::AdamW>(all, optim::AdamWOptions().weight_decay(0.1));
       }},
      {"adam", OptimizerOptions(OptimizerKind::adam).weight_decay(0.1),
       [](const Parameters& all) {
         return std::make_unique<optim::Adam>(all, optim::AdamOptions().weight_decay(0.1));
       }},
      {"sgd", OptimizerOptions(OptimizerKind::sgd).momentum(0.9).nesterov(true),
       [](const Parameters& all) {
         return std::make_unique<optim::SGD>(all, optim::SGDOptions(1).momentum(0.9).nesterov(true));
       }},
      {"rmsprop", OptimizerOptions(OptimizerKind::rmsprop).centered(true).momentum(0.5),
       [](const Parameters& all) {
         return std::make_unique<optim::RMSprop>(all, optim::RMSpropOptions().centered(true).momentum(0.5));
       }},
  };
}

const at::Tensor& batch_ids() {
  static const at::Tensor ids = at::arange(12 * 5, at::kLong).mul(7).remainder(11).view({12, 5});
  return ids;
}

// The sum over `count` sequences of the batch of a squared distance.
template <typename Network>
at::Tensor sum_of_losses(Network& network, int64_t first, int64_t count) {
  const at::Tensor output = network.norm(network.before_norm(batch_ids().narrow(0, first, count)));
  return (output - integers({12, 5, 6}, 4).narrow(0, first, count)).square().sum();
}

struct MeshTrainingCase {
  int64_t tp, dp;
};

void PrintTo(const MeshTrainingCase& value, std::ostream* stream) { *stream << "Tp" << value.tp << "Dp" << value.dp; }

class MeshTraining : public ::testing::TestWithParam<MeshTrainingCase> {};

INSTANTIATE_TEST_SUITE_P(Meshes, MeshTraining,
                         ::testing::Values(MeshTrainingCase{1, 1}, MeshTrainingCase{2, 1}, MeshTrainingCase{1, 2},
                                           MeshTrainingCase{2, 2}, MeshTrainingCase{3, 1}, MeshTrainingCase{1, 3}),
                         ::testing::PrintToStringParamName());

// Clipped in some steps, not in others; shards of 4, 4, 3 words and 3, 2, 2 hidden units at tp 3.
TEST_P(MeshTraining, EqualsOneProcessWithTheWholeBatch) {
  const auto [tp, dp] = GetParam();
  for (const TrainedWith& trained : trained_with()) {
    SCOPED_TRACE(trained.name);
    WholeNetwork start;
    WholeNetwork whole;
    const auto reference = trained.make(whole.parameters());
    std::vector<double> norms;
    int64_t clipped = 0;
    for (int64_t step = 0; step < kSteps; ++step) {
      reference->zero_grad();
      (sum_of_losses(whole, 0, 12) / 60.0).backward();
      norms.push_back(torch::nn::utils::clip_grad_norm_(whole.parameters(), largest_norm(step)));
      clipped += norms.back() > largest_norm(step);
      reference->param_groups()[0].options().set_lr(learning_rate(step));
      reference->step();
    }
    EXPECT_EQ(clipped, kSteps / 2);

    run_ranks(tp, dp, [&](const Mesh& mesh) {
      for (const int64_t micro_batches : {1, 2}) {
        const auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
        copy_from_whole(named_shards(*network), start);
        Gradients gradients(named_shards(*network), mesh, {.bucket_bytes = 500});
        Optimizer optimizer(gradients, trained.options);
        const int64_t count = 12 / mesh.data().size() / micro_batches;
        for (int64_t step = 0; step < kSteps; ++step) {
          gradients.start_step();
          for (int64_t m = 0; m < micro_batches; ++m) {
            if (m + 1 == micro_batches) gradients.reduce_in_next_backward();
            const int64_t first = (mesh.data().rank() * micro_batches + m) * count;
            (sum_of_losses(*network, first, count) / 60.0).backward();
          }
          const GradientTotals totals = gradients.finish();
          EXPECT_TRUE(totals.finite);
          EXPECT_NEAR(totals.norm, norms[step], 1e-10) << "step " << step;
          gradients.clip(totals.norm, largest_norm(step));
          optimizer.step(learning_rate(step));
        }
        for (const NamedShard& entry : named_shards(*network)) {
          EXPECT_TRUE(close(entry.tensor, entry.shard.slice(whole.named_parameters()[entry.name]), 1e-10))
              << entry.name;
        }
      }
    });
  }
}

}  // namespace
}  // namespace optp

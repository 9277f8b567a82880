// A network of one's own, nothing of OPT in it, trained with optp's Trainer on several meshes: the curves agree, since
// a mesh changes who computes what and not what is computed.
#include <ATen/ATen.h>
#include <optp/parallel/column_parallel_linear.h>
#include <optp/parallel/mesh.h>
#include <optp/parallel/row_parallel_linear.h>
#include <optp/src/train/trainer.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <chrono>
#include <cmath>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kInput = 3, kHidden = 31, kOutput = 2;
constexpr int64_t kSteps = 120;

// Points of a function that the network shall learn.
class Waves : public optp::TrainingSet {
 public:
  explicit Waves(int64_t points) {
    input_ = at::linspace(-2, 2, points * kInput, at::kDouble).view({kInput, points}).t().contiguous();
    target_ = at::stack({input_.sum(1).sin(), input_.select(1, 0).cos()}, 1);
  }
  int64_t size() const override { return input_.size(0); }
  optp::Examples read(int64_t, int64_t first, int64_t count) const override {
    return {input_.narrow(0, first, count), target_.narrow(0, first, count)};
  }
  std::string fingerprint() const override { return "waves " + std::to_string(size()); }

 private:
  at::Tensor input_, target_;
};

struct Network : torch::nn::Module {
  explicit Network(const optp::ProcessGroup& group)
      : fc1(register_module(
            "fc1", optp::ColumnParallelLinear(
                       optp::ColumnParallelLinearOptions(kInput, kHidden).tensor_options(at::kDouble), group))),
        fc2(register_module(
            "fc2", optp::RowParallelLinear(optp::RowParallelLinearOptions(kHidden, kOutput).tensor_options(at::kDouble),
                                           group))) {
    // Every rank draws the whole parameter and keeps its part.
    const auto shards = optp::named_shards(*this);
    const at::NoGradGuard no_gradients;
    for (const optp::NamedShard& entry : shards) {
      const at::Tensor whole = at::linspace(-0.9, 1.1, c10::multiply_integers(entry.shard.shape), at::kDouble);
      entry.tensor.copy_(entry.shard.slice(whole.mul(7).sin().view(entry.shard.shape)));
    }
  }
  at::Tensor forward(const at::Tensor& input) { return fc2(fc1(input).tanh()); }

  optp::ColumnParallelLinear fc1;
  optp::RowParallelLinear fc2;
};

// What one rank does.
void train(const optp::Mesh& mesh, std::vector<double>& curve, double& validation) {
  const auto network = std::make_shared<Network>(mesh.tensor());
  const optp::LossFunction loss_sum = [network](const optp::TrainingBatch& batch) {
    return (network->forward(batch.input) - batch.target).square().sum();
  };
  optp::TrainerOptions options;
  options.batch_size(8).micro_batch_size(3).max_steps(kSteps).optimizer(optp::OptimizerKind::adam);
  options.schedule(optp::ScheduleOptions(optp::ScheduleKind::linear).lr(0.02).warmup_steps(5));
  optp::Trainer trainer(network, loss_sum, mesh, options);
  trainer.on_step([&](const optp::StepMetrics& step) { curve.push_back(step.loss); });
  const Waves training(32), held_out(21);
  const optp::TrainingResult result = trainer.fit(training, held_out);
  TORCH_CHECK(result.steps == kSteps && result.stop_code == 0, result.steps, " steps");
  validation = result.last->val_loss.value();
}

std::vector<double> train_on(int64_t tp, int64_t dp) {
  const int64_t ranks = tp * dp;
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::vector<double>> curves(ranks);
  std::vector<double> validation(ranks);
  std::vector<std::exception_ptr> errors(ranks);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        train(optp::Mesh(store, rank, ranks, {.tp = tp, .dp = dp, .timeout = std::chrono::seconds(60)}), curves[rank],
              validation[rank]);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  TORCH_CHECK(curves.front() == curves.back(), "the ranks disagree");
  TORCH_CHECK(curves.front().back() < 0.1 * curves.front().front(), "the loss fell only from ", curves.front().front(),
              " to ", curves.front().back());
  std::cout << "tp " << tp << " x dp " << dp << ": loss " << curves.front().front() << " to " << curves.front().back()
            << ", held-out " << validation.front() << '\n';
  return curves.front();
}

}  // namespace

int main() {
  try {
    const std::vector<double> alone = train_on(1, 1);
    for (const auto& [tp, dp] : {std::pair{2, 1}, {1, 2}, {2, 2}}) {
      const std::vector<double> curve = train_on(tp, dp);
      for (size_t step = 0; step < curve.size(); ++step) {
        TORCH_CHECK(std::abs(curve[step] - alone[step]) < 1e-9, "step ", step + 1, ": ", curve[step], ", alone ",
                    alone[step]);
      }
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}

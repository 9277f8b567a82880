// A two-layer network of one's own, sharded over ranks with optp's layers and compared with the same network whole.
// The ranks are threads that meet in a c10d::HashStore; processes would meet in a c10d::TCPStore and do the same.
#include <ATen/ATen.h>
#include <optp/parallel/column_parallel_linear.h>
#include <optp/parallel/mesh.h>
#include <optp/parallel/parameter_shard.h>
#include <optp/parallel/row_parallel_linear.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/nn/modules/linear.h>

#include <chrono>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kInput = 6;
constexpr int64_t kHidden = 13;  // divides by no number of ranks
constexpr int64_t kOutput = 5;

struct Network : torch::nn::Module {
  Network()
      : fc1(register_module("fc1", torch::nn::Linear(kInput, kHidden))),
        fc2(register_module("fc2", torch::nn::Linear(kHidden, kOutput))) {
    to(at::kDouble);
  }

  at::Tensor forward(const at::Tensor& input) { return fc2(fc1(input).relu()); }

  torch::nn::Linear fc1;
  torch::nn::Linear fc2;
};

// The same network, of which each rank holds a range of the hidden features: one all-reduce forward, one backward.
struct ShardedNetwork : torch::nn::Module {
  explicit ShardedNetwork(const optp::ProcessGroup& group)
      : fc1(register_module(
            "fc1", optp::ColumnParallelLinear(
                       optp::ColumnParallelLinearOptions(kInput, kHidden).tensor_options(at::kDouble), group))),
        fc2(register_module(
            "fc2", optp::RowParallelLinear(optp::RowParallelLinearOptions(kHidden, kOutput).tensor_options(at::kDouble),
                                           group))) {}

  at::Tensor forward(const at::Tensor& input) { return fc2(fc1(input).relu()); }

  optp::ColumnParallelLinear fc1;
  optp::RowParallelLinear fc2;
};

void expect_close(const std::string& what, const at::Tensor& sharded, const at::Tensor& whole) {
  TORCH_CHECK(sharded.sizes() == whole.sizes(), what, " is ", sharded.sizes(), ", not ", whole.sizes());
  const double difference = (sharded - whole).abs().max().item<double>();
  TORCH_CHECK(difference < 1e-12, what, " differs by ", difference);
}

// What one rank does. `whole` has its gradients, for the loss output.square().sum().
void run_rank(const optp::ProcessGroup& group, const Network& whole, const at::Tensor& input,
              const at::Tensor& output) {
  const auto sharded = std::make_shared<ShardedNetwork>(group);
  const auto shards = optp::named_shards(*sharded);
  optp::copy_from_whole(shards, whole);

  const at::Tensor own_input = input.detach().clone().requires_grad_();
  const at::Tensor own_output = sharded->forward(own_input);
  expect_close("the output", own_output, output);

  own_output.square().sum().backward();
  expect_close("the input's gradient", own_input.grad(), input.grad());
  const auto parameters = whole.named_parameters();
  TORCH_CHECK(shards.size() == parameters.size(), shards.size(), " parameters, not ", parameters.size());
  for (const optp::NamedShard& entry : shards) {
    const at::Tensor gradient = optp::gather_whole(entry.tensor.grad(), entry.shard, group, entry.name);
    expect_close("the gradient of " + entry.name, gradient, parameters[entry.name].grad());
  }
}

void run(int64_t ranks) {
  Network whole;
  const at::Tensor input = at::randn({4, kInput}, at::kDouble).requires_grad_();
  const at::Tensor output = whole.forward(input);
  output.square().sum().backward();

  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::exception_ptr> errors(ranks);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const optp::Mesh mesh(store, rank, ranks, {.tp = ranks, .timeout = std::chrono::seconds(30)});
        run_rank(mesh.tensor(), whole, input, output);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  std::cout << "world of " << ranks << ": the same output and gradients\n";
}

}  // namespace

int main() {
  try {
    for (const int64_t ranks : {1, 2, 3}) run(ranks);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}

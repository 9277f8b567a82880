#include "src/bench/collectives.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(const std::function<void()>& call) {
  const auto begin = Clock::now();
  call();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The same number on every rank: the largest of theirs.
double largest(const ProcessGroup& group, double value) {
  at::Tensor all = at::scalar_tensor(value, at::kDouble);
  group.all_reduce_(all, "bench agreement", c10d::ReduceOp::RedOpType::MAX);
  return all.item<double>();
}

double median_seconds(const ProcessGroup& group, int64_t iterations, const std::function<void()>& call) {
  constexpr int64_t kMost = 2000, kLeast = 5;
  call();
  const double once = largest(group, seconds_of(call));
  if (iterations == 0) iterations = std::clamp(static_cast<int64_t>(std::ceil(1 / once)), kLeast, kMost);
  std::vector<double> seconds;
  for (int64_t i = 0; i < iterations; ++i) {
    group.barrier("bench start");
    seconds.push_back(seconds_of(call));
  }
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return largest(group, *middle);
}

}  // namespace

void bench_collectives(const Mesh& mesh, int64_t iterations, const std::function<void(const CollectiveTime&)>& report) {
  const ProcessGroup& group = mesh.tensor();
  const auto run = [&](const char* operation, int64_t bytes, const std::function<void()>& call) {
    report({operation, bytes, median_seconds(group, iterations, call) * 1e6});
  };
  const char* site = "bench";
  for (const int64_t bytes : {int64_t{4} << 10, int64_t{24} << 10, int64_t{3} << 20, int64_t{64} << 20}) {
    const ShardLayout layout(bytes / 4, group.size());
    at::Tensor whole = at::ones({layout.total()});
    const at::Tensor part = at::ones({layout.range(group.rank()).size});
    run("all_reduce", bytes, [&] { group.all_reduce_(whole, site, c10d::ReduceOp::RedOpType::MAX); });
    run("all_gather", bytes, [&] { group.all_gather(part, 0, layout, site); });
    run("reduce_scatter", bytes, [&] { group.reduce_scatter(whole, 0, layout, site); });
    run("broadcast", bytes, [&] { group.broadcast_(whole, 0, site); });
  }
  run("barrier", 0, [&] { group.barrier(site); });
}

}  // namespace optp

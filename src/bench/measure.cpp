#include "src/bench/measure.h"

#include <ATen/ATen.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>

#include "src/process_memory.h"

namespace optp {

double Measurement::median() const {
  const size_t middle = seconds.size() / 2;
  return seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
}

PeakMemory::PeakMemory() {
  malloc_trim(0);  // what an earlier measurement has freed
  std::ofstream("/proc/self/clear_refs") << 5;
}

int64_t PeakMemory::largest(const Mesh& mesh) const {
  at::Tensor peak = at::scalar_tensor(peak_resident_bytes(), at::kLong);
  mesh.world().all_reduce_(peak, "bench memory", c10d::ReduceOp::RedOpType::MAX);
  return peak.item<int64_t>();
}

Measurement measure(const Mesh& mesh, const PeakMemory& memory, int64_t warmup, int64_t iterations,
                    const std::function<void()>& action) {
  Measurement result;
  double communication = 0;
  for (int64_t i = 0; i < warmup + iterations; ++i) {
    mesh.world().barrier("bench start");
    const double communicated = mesh.communication_seconds();
    const auto begin = std::chrono::steady_clock::now();
    action();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    if (i < warmup) continue;
    result.seconds.push_back(seconds.count());
    communication += mesh.communication_seconds() - communicated;
  }
  result.comm_fraction = communication / std::accumulate(result.seconds.begin(), result.seconds.end(), 0.0);
  std::sort(result.seconds.begin(), result.seconds.end());
  result.peak_rss_bytes = memory.largest(mesh);
  return result;
}

}  // namespace optp

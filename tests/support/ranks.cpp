#include "tests/support/ranks.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace optp::testing {

void run_ranks_over(Mesh::Comm comm, int64_t tp, int64_t dp, const std::function<void(const Mesh&)>& body) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < tp * dp; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        at::set_num_threads(1);
        // A rank that fails leaves the others waiting: they give up after this long, and the first error is the one
        // shown.
        const Mesh mesh(
            store, rank, tp * dp,
            {.tp = tp, .dp = dp, .timeout = std::chrono::seconds(20), .comm = comm, .check_collectives = true});
        body(mesh);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

void run_ranks(int64_t tp, int64_t dp, const std::function<void(const Mesh&)>& body) {
  if (tp * dp > 1) {
    SCOPED_TRACE("over Gloo");
    run_ranks_over(Mesh::Comm::gloo, tp, dp, body);
  }
  SCOPED_TRACE("over shared memory");
  run_ranks_over(Mesh::Comm::automatic, tp, dp, body);
}

}  // namespace optp::testing

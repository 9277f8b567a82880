// Collectives through shared memory: sizes around those of its places, the order of sums, and ranks that do not come.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "parallel/shared_memory_backend.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using c10d::ReduceOp;
using testing::integers;
using testing::message_of;
using testing::same;

using Body = std::function<void(SharedMemoryBackend&, int64_t rank)>;

void on_ranks(int64_t size, const Body& body, std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      std::string why_not;
      const auto backend = SharedMemoryBackend::open(store, rank, size, timeout, why_not);
      ASSERT_TRUE(backend) << why_not;
      body(*backend, rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

at::Tensor all_reduce(SharedMemoryBackend& backend, const at::Tensor& tensor, ReduceOp::RedOpType op = ReduceOp::SUM) {
  std::vector<at::Tensor> tensors{tensor.clone()};
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  backend.allreduce(tensors, options);
  return tensors[0];
}

void barrier(SharedMemoryBackend& backend) { backend.barrier({}); }

const std::vector<int64_t> kDegrees = {2, 3, 4, 7};

// Around nothing, a range a rank, one place, and several: in bytes of the largest type.
std::vector<int64_t> sizes_of(at::ScalarType type) {
  const int64_t place = SharedMemoryBackend::kPlaceBytes / static_cast<int64_t>(c10::elementSize(type));
  return {0, 1, 6, 1025, place - 1, place, place + 1, 2 * place + place / 2 + 3};
}

TEST(SharedMemory, ReducesEverySizeTypeAndDegree) {
  for (const int64_t degree : kDegrees) {
    on_ranks(degree, [&](SharedMemoryBackend& backend, int64_t rank) {
      for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong, at::kInt}) {
        for (const int64_t size : sizes_of(type)) {
          SCOPED_TRACE(c10::str(degree, " ranks, ", type, ", ", size, " elements"));
          const at::Tensor base = integers({size}, 0, type);
          const int64_t triangle = degree * (degree + 1) / 2;
          EXPECT_TRUE(same(all_reduce(backend, base * (rank + 1)), base * triangle));
          // The rank itself, and its negative, decide where the base is 0 or of either sign.
          EXPECT_TRUE(same(all_reduce(backend, base + rank, ReduceOp::MAX), base + (degree - 1)));
          EXPECT_TRUE(same(all_reduce(backend, base + rank, ReduceOp::MIN), base));
        }
      }
    });
  }
}

TEST(SharedMemory, MovesEverySize) {
  for (const int64_t degree : kDegrees) {
    on_ranks(degree, [&](SharedMemoryBackend& backend, int64_t rank) {
      for (const int64_t size : sizes_of(at::kLong)) {
        SCOPED_TRACE(c10::str(degree, " ranks, ", size, " elements"));
        std::vector<at::Tensor> inputs{integers({size}, rank, at::kLong)};
        std::vector<std::vector<at::Tensor>> gathered(1);
        for (int64_t i = 0; i < degree; ++i) gathered[0].push_back(at::full({size}, -1, at::kLong));
        backend.allgather(gathered, inputs, {});
        for (int64_t i = 0; i < degree; ++i) EXPECT_TRUE(same(gathered[0][i], integers({size}, i, at::kLong)));
        for (int64_t root = 0; root < degree; ++root) {
          std::vector<at::Tensor> sent{rank == root ? integers({size}, root, at::kLong) : at::zeros({size}, at::kLong)};
          c10d::BroadcastOptions options;
          options.rootRank = root;
          backend.broadcast(sent, options);
          EXPECT_TRUE(same(sent[0], integers({size}, root, at::kLong)));
        }
      }
    });
  }
}

TEST(SharedMemory, ScattersPartsOfDifferentSizes) {
  for (const int64_t degree : kDegrees) {
    on_ranks(degree, [&](SharedMemoryBackend& backend, int64_t rank) {
      for (const int64_t size : sizes_of(at::kFloat)) {
        SCOPED_TRACE(c10::str(degree, " ranks, ", size, " elements"));
        std::vector<std::vector<at::Tensor>> inputs(1);
        for (int64_t part = 0; part < degree; ++part) {
          inputs[0].push_back(integers({size + 5 * part}, part, at::kFloat) * (rank + 1));
        }
        std::vector<at::Tensor> outputs{at::empty({size + 5 * rank})};
        backend.reduce_scatter(outputs, inputs, {});
        EXPECT_TRUE(same(outputs[0], integers({size + 5 * rank}, rank, at::kFloat) * (degree * (degree + 1) / 2)));
      }
    });
  }
}

// 0.1, 0.2 and so on: sums in another order have other bits.
TEST(SharedMemory, AddsInTheOrderOfTheRanks) {
  const auto addend = [](int64_t rank) { return (at::arange(200003, at::kFloat) * (0.1 + rank)).sin() * 1000; };
  for (const int64_t degree : {4, 7}) {
    at::Tensor expected = addend(0);
    for (int64_t rank = 1; rank < degree; ++rank) expected += addend(rank);
    on_ranks(degree, [&](SharedMemoryBackend& backend, int64_t rank) {
      for (int run = 0; run < 3; ++run) EXPECT_TRUE(all_reduce(backend, addend(rank)).equal(expected));
      const at::Tensor few = addend(rank).narrow(0, 0, 100);
      EXPECT_TRUE(all_reduce(backend, few).equal(expected.narrow(0, 0, 100)));
    });
  }
}

TEST(SharedMemory, ANotANumberOfAnyRankReachesAll) {
  on_ranks(3, [](SharedMemoryBackend& backend, int64_t rank) {
    for (const auto op : {ReduceOp::SUM, ReduceOp::MAX, ReduceOp::MIN}) {
      for (int64_t source = 0; source < 3; ++source) {
        const at::Tensor tensor = at::full({5}, rank == source ? NAN : 1.0F);
        EXPECT_TRUE(all_reduce(backend, tensor, op).isnan().all().item<bool>());
      }
    }
  });
}

TEST(SharedMemory, RanksThatDisagreeSayWhatEachOfThemDoes) {
  on_ranks(2, [](SharedMemoryBackend& backend, int64_t rank) {
    const std::string message =
        message_of([&] { rank == 0 ? void(all_reduce(backend, at::ones({4}))) : barrier(backend); });
    const std::string other = rank == 0 ? "this rank takes part in all_reduce of 4 Float (sum) and rank 1 in barrier"
                                        : "this rank takes part in barrier and rank 0 in all_reduce of 4 Float (sum)";
    EXPECT_EQ(message, other + "; all ranks must make the same calls in the same order");
  });
  const std::vector<std::pair<at::Tensor, at::Tensor>> pairs = {{at::ones({4}), at::ones({5})},
                                                                {at::ones({4}), at::ones({4}, at::kInt)}};
  for (const auto& pair : pairs) {
    on_ranks(2, [&](SharedMemoryBackend& backend, int64_t rank) {
      const at::Tensor& own = rank == 0 ? pair.first : pair.second;
      EXPECT_NE(message_of([&] { all_reduce(backend, own); }), "no error");
      EXPECT_NE(message_of([&] { barrier(backend); }), "no error") << "a group that failed was used again";
    });
  }
}

TEST(SharedMemory, ARankThatLeavesIsNamedAtOnce) {
  on_ranks(3, [](SharedMemoryBackend& backend, int64_t rank) {
    barrier(backend);
    if (rank == 1) return;
    const std::string message = message_of([&] { all_reduce(backend, at::ones({4})); });
    // The other one may have noticed first, and given up.
    EXPECT_NE(message.find(" has given up or left the group; it last took part in "), std::string::npos) << message;
  });
}

TEST(SharedMemory, ARankThatStallsIsNamedAfterTheTimeLimit) {
  const std::chrono::milliseconds limit(300);
  on_ranks(
      2,
      [&](SharedMemoryBackend& backend, int64_t rank) {
        barrier(backend);
        if (rank == 1) {
          std::this_thread::sleep_for(3 * limit);
          return;
        }
        const auto begin = std::chrono::steady_clock::now();
        EXPECT_EQ(message_of([&] { all_reduce(backend, at::ones({4})); }),
                  c10::str("rank 1 (process ", getpid(),
                           ") did not come to all_reduce of 4 Float (sum) within 0.3 s; it last took part in barrier"));
        EXPECT_LT(std::chrono::steady_clock::now() - begin, 2 * limit);
      },
      limit);
}

// What a process holds: its descriptors, and its mappings of optp's memory.
std::pair<int64_t, int64_t> held() {
  const int64_t files = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  int64_t mappings = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) mappings += line.find("memfd:optp") != std::string::npos;
  return {files, mappings};
}

TEST(SharedMemory, NothingIsLeftBehind) {
  const auto before = held();
  on_ranks(3, [](SharedMemoryBackend& backend, int64_t rank) {
    barrier(backend);
    if (rank == 0) {
      EXPECT_EQ(held().second, 3);
    }
    barrier(backend);
    if (rank == 1) return;
    EXPECT_NE(message_of([&] { barrier(backend); }), "no error");
  });
  EXPECT_EQ(held(), before);
}

TEST(SharedMemory, RanksOnDifferentHostsAreNamed) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  const std::string elsewhere = "another boot";
  store->set("host/1", std::vector<uint8_t>(elsewhere.begin(), elsewhere.end()));
  std::string why_not;
  EXPECT_FALSE(SharedMemoryBackend::open(store, 0, 2, std::chrono::seconds(20), why_not));
  EXPECT_EQ(why_not, "rank 1 runs on another host than rank 0, in another container or for another user");
}

TEST(SharedMemory, WhatCannotBeReducedIsRefused) {
  on_ranks(2, [](SharedMemoryBackend& backend, int64_t /*rank*/) {
    EXPECT_NE(message_of([&] { all_reduce(backend, at::ones({4}), ReduceOp::BXOR); }).find("use a sum"),
              std::string::npos);
    EXPECT_NE(message_of([&] { all_reduce(backend, at::ones({4}, at::kBool)); }).find("cannot reduce Bool"),
              std::string::npos);
    std::vector<at::Tensor> view{at::ones({4, 4}).t()};
    EXPECT_NE(message_of([&] { backend.allreduce(view, {}); }).find("contiguous"), std::string::npos);
    EXPECT_TRUE(same(all_reduce(backend, at::ones({4})), at::full({4}, 2.0F)));  // nobody has been disturbed
  });
}

}  // namespace
}  // namespace optp

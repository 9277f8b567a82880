// What ProcessGroup adds to its backend: counts, the hook, the group of one, and errors that say where.
#include "parallel/process_group.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::run_ranks;
using testing::same;

using Call = std::pair<std::string, std::function<void(const ProcessGroup&)>>;

// Each operation once, at a site "<operation> site", on 6 float32 numbers.
std::vector<Call> every_operation() {
  return {
      {"all_reduce",
       [](const ProcessGroup& group) {
         at::Tensor tensor = integers({6}, 0, at::kFloat);
         group.all_reduce_(tensor, "all_reduce site");
       }},
      {"all_gather",
       [](const ProcessGroup& group) {
         group.all_gather(integers({2, 3}, 0, at::kFloat), 0, {2 * group.size(), group.size()}, "all_gather site");
       }},
      {"reduce_scatter",
       [](const ProcessGroup& group) {
         group.reduce_scatter(integers({6}, 0, at::kFloat), 0, {6, group.size()}, "reduce_scatter site");
       }},
      {"broadcast",
       [](const ProcessGroup& group) {
         at::Tensor tensor = integers({6}, 0, at::kFloat);
         group.broadcast_(tensor, group.size() - 1, "broadcast site");
       }},
      {"barrier", [](const ProcessGroup& group) { group.barrier("barrier site"); }},
  };
}

// An all_reduce that runs in the background, at the site of the one that blocks.
const Call& background_all_reduce() {
  static const Call call = {"all_reduce", [](const ProcessGroup& group) {
                              group.start_all_reduce_(integers({6}, 0, at::kFloat), "all_reduce site").wait();
                            }};
  return call;
}

std::vector<Call> every_operation_and_background() {
  std::vector<Call> calls = every_operation();
  calls.push_back(background_all_reduce());
  return calls;
}

TEST(ProcessGroupCounts, AddUpCallsAndBytesBySite) {
  run_ranks(2, [](const Mesh& mesh) {
    ProcessGroup group = mesh.tensor();
    for (int repeat = 0; repeat < 3; ++repeat) {
      for (const auto& [operation, call] : every_operation()) call(group);
    }
    at::Tensor wide = integers({4, 5});
    group.all_reduce_(wide, "all_reduce site");

    const auto& counts = mesh.tensor().counts();  // copies share them
    ASSERT_EQ(counts.size(), 5U);
    EXPECT_EQ(counts.at("all_reduce site").calls, 4);
    EXPECT_EQ(counts.at("all_reduce site").bytes, 3 * 6 * 4 + 20 * 8);
    for (const char* site : {"all_gather site", "reduce_scatter site", "broadcast site"}) {
      EXPECT_EQ(counts.at(site).calls, 3) << site;
      EXPECT_EQ(counts.at(site).bytes, 3 * 6 * 4) << site;
      EXPECT_GT(counts.at(site).seconds, 0) << site;
    }
    EXPECT_EQ(counts.at("barrier site").calls, 3);
    EXPECT_EQ(counts.at("barrier site").bytes, 0);
    EXPECT_TRUE(mesh.world().counts().empty());

    group.reset_counts();
    EXPECT_TRUE(mesh.tensor().counts().empty());
  });
}

TEST(ProcessGroupBackground, AllReducesRunTogetherAndAreCountedWhenTheyAreWaitedFor) {
  run_ranks(3, [](const Mesh& mesh) {
    const ProcessGroup& group = mesh.tensor();
    std::vector<at::Tensor> tensors;
    std::vector<PendingCollective> pending;
    for (int64_t i = 0; i < 5; ++i) {
      tensors.push_back(integers({1000 * i + 1}, group.rank() + i));
      pending.push_back(group.start_all_reduce_(tensors[i], "background"));
      EXPECT_TRUE(pending[i].under_way());
    }
    EXPECT_TRUE(group.counts().empty());
    at::Tensor meanwhile = integers({6}, group.rank());
    group.all_reduce_(meanwhile, "meanwhile");
    EXPECT_TRUE(same(meanwhile, integers({6}, 0) + integers({6}, 1) + integers({6}, 2)));
    for (int64_t i = 4; i >= 0; --i) {
      pending[i].wait();
      EXPECT_FALSE(pending[i].under_way());
      pending[i].wait();  // returns at once
      at::Tensor expected = at::zeros({1000 * i + 1}, at::kDouble);
      for (int64_t rank = 0; rank < 3; ++rank) expected += integers({1000 * i + 1}, rank + i);
      EXPECT_TRUE(same(tensors[i], expected));
    }
    EXPECT_EQ(group.counts().at("background").calls, 5);
    EXPECT_EQ(group.counts().at("background").bytes, 8 * (5 + 1000 * (1 + 2 + 3 + 4)));
    EXPECT_GT(group.counts().at("background").seconds, 0);
  });
}

TEST(ProcessGroupBackground, AnAllReduceIsNotUnderWayWhenItIsDroppedOrTheRankIsAlone) {
  EXPECT_FALSE(ProcessGroup().start_all_reduce_(integers({4}), "alone").under_way());
  run_ranks(2, [](const Mesh& mesh) {
    ProcessGroup group = mesh.tensor();
    group.set_hook([](const Collective& collective) { return collective.operation != "all_reduce"; });
    const at::Tensor tensor = integers({4}, group.rank());
    PendingCollective pending = group.start_all_reduce_(tensor, "dropped");
    EXPECT_FALSE(pending.under_way());
    pending.wait();
    EXPECT_TRUE(same(tensor, integers({4}, group.rank())));
    EXPECT_THAT(message_of<c10::ValueError>([&] { group.start_all_reduce_(integers({2, 3}).t(), "view"); }),
                HasSubstr("all_reduce at view: a collective that runs in the background needs a contiguous tensor"));
    EXPECT_TRUE(group.counts().empty());
  });
}

TEST(ProcessGroupHook, SeesEveryCollectiveBeforeItRuns) {
  run_ranks(2, [](const Mesh& mesh) {
    std::vector<std::string> seen;
    ProcessGroup group = mesh.tensor();
    group.set_hook([&](const Collective& collective) {
      seen.push_back(c10::str(collective.operation, ", ", collective.site));
      EXPECT_EQ(collective.buffer.defined(), collective.operation != "barrier");
      if (collective.operation == "all_reduce") {
        EXPECT_TRUE(same(collective.buffer, integers({6}, 0, at::kFloat)));
      }
      return true;
    });
    std::vector<std::string> expected;
    for (const auto& [operation, call] : every_operation()) {
      call(mesh.tensor());  // copies share the hook
      expected.push_back(operation + ", " + operation + " site");
    }
    EXPECT_EQ(seen, expected);

    group.set_hook({});
    every_operation()[0].second(group);
    EXPECT_EQ(seen, expected);
  });
}

TEST(ProcessGroupHook, DropsACall) {
  run_ranks(3, [](const Mesh& mesh) {
    ProcessGroup group = mesh.tensor();
    const int64_t rank = group.rank();
    group.set_hook([](const Collective& collective) { return collective.site != "dropped"; });
    at::Tensor tensor = integers({2, 3}, rank);
    group.all_reduce_(tensor, "dropped");
    EXPECT_TRUE(same(tensor, integers({2, 3}, rank)));
    at::Tensor view = tensor.t();
    group.all_reduce_(view, "dropped");
    EXPECT_TRUE(same(tensor, integers({2, 3}, rank)));
    group.broadcast_(tensor, 1, "dropped");
    EXPECT_TRUE(same(tensor, integers({2, 3}, rank)));
    EXPECT_TRUE(same(group.reduce_scatter(tensor, 1, {3, 3}, "dropped"), tensor.narrow(1, rank, 1)));
    at::Tensor own_row = at::zeros({3, 4}, at::kDouble);
    own_row[rank] = integers({4}, rank);
    EXPECT_TRUE(same(group.all_gather(own_row.narrow(0, rank, 1), 0, {3, 3}, "dropped"), own_row));
    group.barrier("dropped");
    EXPECT_TRUE(group.counts().empty());
    group.all_reduce_(tensor, "kept");
    EXPECT_TRUE(same(tensor, integers({2, 3}, 0) + integers({2, 3}, 1) + integers({2, 3}, 2)));
    EXPECT_EQ(group.counts().size(), 1U);
  });
}

TEST(ProcessGroupHook, MayChangeTheContribution) {
  run_ranks(2, [](const Mesh& mesh) {
    ProcessGroup group = mesh.tensor();
    group.set_hook([&](const Collective& collective) {
      if (group.rank() == 1) collective.buffer.mul_(10);
      return true;
    });
    at::Tensor tensor = integers({4});
    group.all_reduce_(tensor, "changed");
    EXPECT_TRUE(same(tensor, integers({4}) * 11));
    group.set_hook({});  // it holds the group
  });
}

TEST(ProcessGroupOfOne, ReturnsAtOnceAndCopiesNothing) {
  ProcessGroup group;
  EXPECT_EQ(group.rank(), 0);
  EXPECT_EQ(group.size(), 1);
  bool asked = false;
  group.set_hook([&](const Collective&) { return asked = true; });
  at::Tensor whole = integers({6, 4});
  at::Tensor view = whole.t();
  for (at::Tensor* tensor : {&whole, &view}) {
    const int64_t version = tensor->_version();
    group.all_reduce_(*tensor, "one");
    group.broadcast_(*tensor, 0, "one");
    EXPECT_EQ(tensor->_version(), version) << "written to";
    EXPECT_EQ(group.all_gather(*tensor, 0, {tensor->size(0), 1}, "one").data_ptr(), tensor->data_ptr());
    EXPECT_EQ(group.reduce_scatter(*tensor, 1, {tensor->size(1), 1}, "one").data_ptr(), tensor->data_ptr());
  }
  group.barrier("one");
  EXPECT_TRUE(same(whole, integers({6, 4})));
  EXPECT_TRUE(group.counts().empty());
  EXPECT_FALSE(asked);
}

TEST(ProcessGroupErrors, ALayoutThatDoesNotFitIsRefusedBeforeAnythingIsSent) {
  run_ranks(2, [](const Mesh& mesh) {
    const ProcessGroup& group = mesh.tensor();
    const auto gather_error = [&](int64_t elements, const ShardLayout& layout) {
      return message_of<c10::ValueError>([&] { group.all_gather(integers({3, elements}), -1, layout, "head"); });
    };
    EXPECT_EQ(gather_error(3, {8, 2}),
              c10::str("all_gather at head: 3 elements of dimension -1 are not the part of rank ", group.rank(),
                       " of 2 in a layout of 8 over 2 ranks."));
    EXPECT_THAT(gather_error(2, {6, 3}), HasSubstr("in a layout of 6 over 3 ranks"));
    const auto scatter_error = [&](int64_t elements, const ShardLayout& layout) {
      return message_of<c10::ValueError>([&] { group.reduce_scatter(integers({elements}), 0, layout, "loss"); });
    };
    EXPECT_EQ(scatter_error(7, {8, 2}),
              "reduce_scatter at loss: 7 elements of dimension 0 do not fit a layout of 8 over "
              "2 ranks in a group of 2.");
    EXPECT_THAT(scatter_error(6, {6, 3}), HasSubstr("a layout of 6 over 3 ranks in a group of 2"));
    EXPECT_TRUE(group.counts().empty());
  });
}

TEST(ProcessGroupErrors, APeerThatIsGoneIsNamedWithOperationSiteAndRank) {
  for (const auto& [operation, call] : every_operation_and_background()) {
    const auto begin = std::chrono::steady_clock::now();
    std::string message;
    run_ranks(3, [&, &operation = operation, &call = call](const Mesh& mesh) {
      mesh.tensor().barrier("start");
      if (mesh.tensor().rank() != 0) return;  // and destroys its connections
      message = message_of<c10::DistBackendError>([&] { call(mesh.tensor()); });
    });
    EXPECT_THAT(message, HasSubstr(operation + " at " + operation + " site failed on rank 0 of 3 of the tensor group"));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15)) << operation;
  }
}

TEST(ProcessGroupErrors, APeerThatDoesNotAnswerRunsIntoTheTimeLimit) {
  for (const auto& [operation, call] : every_operation_and_background()) {
    auto store = c10::make_intrusive<c10d::HashStore>();
    const Mesh::Options options{.tp = 2, .timeout = std::chrono::milliseconds(500)};
    std::promise<void> given_up;
    [[maybe_unused]] const auto silent = std::async(std::launch::async, [&] {
      const Mesh mesh(store, 1, 2, options);
      given_up.get_future().wait();
    });
    const Mesh mesh(store, 0, 2, options);
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(message_of<c10::DistBackendError>([&, &call = call] { call(mesh.tensor()); }),
                HasSubstr(operation + " at " + operation + " site failed on rank 0 of 2 of the tensor group"));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10)) << operation;
    given_up.set_value();
  }
}

// Without the check the first pair hangs until the time limit, and the second adds what does not belong together.
TEST(ProcessGroupCheck, RanksThatDisagreeOverGlooSayWhatEachOfThemDoes) {
  using Action = std::function<void(const ProcessGroup&)>;
  const auto sum = [](at::IntArrayRef sizes, at::ScalarType type, const char* site) -> Action {
    return [=, shape = sizes.vec()](const ProcessGroup& group) {
      at::Tensor tensor = at::ones(shape, type);
      group.all_reduce_(tensor, site);
    };
  };
  const Action wait = [](const ProcessGroup& group) { group.barrier("end"); };
  struct Case {
    Action calls[2];
    std::string texts[2];
  };
  const std::vector<Case> cases{
      {{sum({4}, at::kFloat, "loss"), wait}, {"all_reduce of 4 Float at loss", "barrier at end"}},
      {{sum({4}, at::kFloat, "a"), sum({4}, at::kFloat, "b")},
       {"all_reduce of 4 Float at a", "all_reduce of 4 Float at b"}},
      {{sum({4}, at::kFloat, "a"), sum({5}, at::kFloat, "a")},
       {"all_reduce of 4 Float at a", "all_reduce of 5 Float at a"}},
      {{sum({4}, at::kFloat, "a"), sum({4}, at::kInt, "a")},
       {"all_reduce of 4 Float at a", "all_reduce of 4 Int at a"}}};
  for (const Case& one : cases) {
    testing::run_ranks_over(Mesh::Comm::gloo, 2, 1, [&](const Mesh& mesh) {
      ProcessGroup group = mesh.tensor();
      group.set_checks_calls(true);
      group.barrier("begin");
      const int64_t rank = group.rank();
      EXPECT_THAT(testing::message_of<c10::DistBackendError>([&] { one.calls[rank](group); }),
                  HasSubstr(c10::str("this rank takes part in ", one.texts[rank], " and rank ", 1 - rank, " in ",
                                     one.texts[1 - rank], "; all ranks must")));
    });
  }
}

}  // namespace
}  // namespace optp

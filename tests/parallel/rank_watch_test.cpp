// RankWatch: what ranks learn of each other, here as threads over a store in memory.
#include "parallel/rank_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <unistd.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "parallel/host_process.h"
#include "parallel/rank_status.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kReason = "the network failed";

// Ranks 0 .. size - 1 of a world that is one tensor-parallel group.
class RankWatchTest : public ::testing::Test {
 protected:
  std::unique_ptr<RankWatch> watch(int64_t rank, int64_t size) {
    RankWatch::Members members;
    for (int64_t other = 0; other < size; ++other) members[0].push_back(other);
    members[1] = members[0];
    members[2] = {rank};
    return std::make_unique<RankWatch>(store_, rank, members, /*serves_store=*/false);
  }

  // What a rank in another process shows.
  void show(int64_t rank, const RankStatus& status) {
    const std::string text = status.text();
    store_->set(std::to_string(rank), std::vector<uint8_t>(text.begin(), text.end()));
  }

  static RankStatus status_of(int64_t process, const std::string& identity) {
    RankStatus status;
    status.beats = 1;
    status.process = process;
    status.host = "elsewhere";
    status.identity = identity;
    status.progress = "step 3";
    return status;
  }

  c10::intrusive_ptr<c10d::HashStore> store_ = c10::make_intrusive<c10d::HashStore>();
};

// A process of this host that has ended.
pid_t ended_process() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  while (!process_has_ended(child)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return child;
}

TEST_F(RankWatchTest, ARankAloneHasOnlyItsProgress) {
  RankWatch alone;
  EXPECT_EQ(alone.report(), "starting");
  alone.set_progress("step 2");
  EXPECT_EQ(alone.report(), "step 2");
}

TEST_F(RankWatchTest, AProcessThatHasEndedIsNamedAtOnce) {
  const auto own = watch(0, 2);
  show(1, status_of(ended_process(), host_identity()));
  EXPECT_EQ(own->lost(), "");  // now it knows whom to look for
  EXPECT_THAT(own->lost(), StartsWith("rank 1 (process "));
  own->enter(1, "all_reduce", "fc2", true);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(
      own->explain(kReason),
      MatchesRegex("rank 1 \\(process [0-9]+ on elsewhere\\) has ended, last seen at step 3, no collective yet"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(RankWatchTest, ARankOfAnotherHostThatIsSilentIsNamed) {
  const auto own = watch(0, 2);
  RankStatus theirs = status_of(1, "another host");
  theirs.operation = "all_reduce";
  theirs.site = "fc1";
  theirs.group = 1;
  show(1, theirs);
  EXPECT_EQ(own->lost(), "");
  own->enter(1, "all_reduce", "fc2", true);
  EXPECT_THAT(own->explain(kReason), HasSubstr("has stopped or cannot be reached, last seen at step 3, 0.0 s after "
                                               "all_reduce at fc1 (tensor group)"));
}

TEST_F(RankWatchTest, ARankThatHasLeftIsNamed) {
  const auto own = watch(0, 2);
  watch(1, 2)->set_progress("step 9");
  own->enter(0, "barrier", "end", true);
  EXPECT_THAT(own->explain(kReason), HasSubstr("has left the run, last seen at step 9, no collective yet"));
}

TEST_F(RankWatchTest, WhatARankFoundOutIsToldOn) {
  const auto own = watch(0, 3), other = watch(1, 3);
  show(2, status_of(ended_process(), host_identity()));
  other->enter(1, "all_gather", "qkv", true);
  const std::string found = other->explain(kReason);
  EXPECT_THAT(found, HasSubstr("rank 2 (process "));
  show(2, status_of(1, "another host"));  // so that rank 0 knows nothing by itself
  std::promise<void> end;
  std::thread beats([&, ended = end.get_future()] {
    RankStatus alive = status_of(1, "another host");
    while (ended.wait_for(std::chrono::milliseconds(100)) == std::future_status::timeout) {
      ++alive.beats;
      show(2, alive);
    }
  });
  own->enter(1, "all_gather", "qkv", true);
  EXPECT_EQ(own->explain(kReason), "rank 1 has failed: " + found);
  end.set_value();
  beats.join();
}

TEST_F(RankWatchTest, AfterALongWaitAllTellWhereTheyAre) {
  const auto own = watch(0, 3), second = watch(1, 3), third = watch(2, 3);
  third->set_progress("step 5");
  for (RankWatch* watch : {own.get(), second.get()}) watch->enter(1, "all_reduce", "fc2", true);
  std::this_thread::sleep_for(std::chrono::milliseconds(3000));
  EXPECT_THAT(own->report(),
              MatchesRegex("waiting for 3\\.[0-9] s in all_reduce at fc2 \\(tensor group\\) for rank 2"));
  EXPECT_THAT(
      own->explain(kReason),
      MatchesRegex("the network failed; rank 2 \\(process [0-9]+ on .*\\) has not come, it is at step 5, no "
                   "collective yet; rank 1 is at waiting for [0-9.]+ s in all_reduce at fc2 \\(tensor group\\)"));
}

TEST_F(RankWatchTest, ACollectiveThatGoesOnHasNobodyLate) {
  const auto own = watch(0, 2), other = watch(1, 2);
  for (RankWatch* watch : {own.get(), other.get()}) watch->enter(1, "all_reduce", "fc2", true);
  own->leave();
  EXPECT_THAT(own->report(), Not(HasSubstr("for rank")));
  EXPECT_THAT(own->explain(kReason), StartsWith(kReason));
}

}  // namespace
}  // namespace optp

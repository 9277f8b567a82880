// RankStatus: what a rank shows arrives whole, and nothing else is taken for it.
#include "parallel/rank_status.h"

#include <gtest/gtest.h>

namespace optp {
namespace {

RankStatus waiting_status() {
  RankStatus status;
  status.beats = 7;
  status.process = 41;
  status.host = "node1";
  status.identity = "boot pid:[1] 0";
  status.progress = "step 12";
  status.waiting = true;
  status.operation = "all_reduce";
  status.site = "fc2";
  status.group = 1;
  status.milliseconds = 3240;
  status.calls = {5, 40, 2};
  return status;
}

TEST(RankStatus, ArrivesWhole) {
  const RankStatus sent = waiting_status();
  const RankStatus read = RankStatus::parse(sent.text());
  EXPECT_EQ(read.beats, 7);
  EXPECT_EQ(read.phase, RankStatus::Phase::running);
  EXPECT_EQ(read.host, "node1");
  EXPECT_EQ(read.calls, sent.calls);
  EXPECT_EQ(read.text(), sent.text());
  EXPECT_EQ(read.doing(), "step 12, waiting for 3.2 s in all_reduce at fc2 (tensor group)");
}

TEST(RankStatus, KeepsAFailureOfSeveralLinesOnOne) {
  RankStatus sent = waiting_status();
  sent.phase = RankStatus::Phase::failed;
  sent.failure = "rank 1 has ended\nat step 12";
  const RankStatus read = RankStatus::parse(sent.text());
  EXPECT_EQ(read.phase, RankStatus::Phase::failed);
  EXPECT_EQ(read.failure, "rank 1 has ended at step 12");
}

TEST(RankStatus, TakesNothingElseForAStatus) {
  const std::string whole = waiting_status().text();
  const auto with = [&](const std::string& old, const std::string& other) {
    std::string text = whole;
    return text.replace(text.find(old), old.size(), other);
  };
  for (const std::string& text :
       {std::string(), whole + "\n", whole + "\n1", with("7\n0\n", "7\n3\n"), with("7\n0\n", "7\n-1\n"),
        with("7\n0\n", "7x\n0\n"), with("7\n0\n", "\n0\n"), with("\n41\n", "\n99999999999999999999\n"),
        with("\n1\nall_reduce", "\n2\nall_reduce"), with("fc2\n1\n", "fc2\n3\n"), with("fc2\n1\n", "fc2\n-1\n")}) {
    EXPECT_EQ(RankStatus::parse(text).beats, 0) << text;
  }
}

}  // namespace
}  // namespace optp

// `--profile`: the trace of real ranks, held against what the run itself counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

// Seconds by rank and category, of the complete events; every event has what the format asks for.
std::map<int, std::map<std::string, double>> seconds_of(const Json& trace) {
  std::map<int, std::map<std::string, double>> seconds;
  for (const Json& event : trace.at("traceEvents")) {
    const int rank = event.at("pid").get<int>();
    if (event.at("ph") == "M") continue;
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_TRUE(event.at("tid").is_number_integer() && event.at("name").is_string());
    EXPECT_GE(event.at("ts").get<double>(), 0);
    seconds[rank][event.at("cat").get<std::string>()] += event.at("dur").get<double>() / 1e6;
  }
  return seconds;
}

std::set<std::string> keys_of(const std::map<std::string, double>& seconds) {
  std::set<std::string> keys;
  for (const auto& [key, value] : seconds) keys.insert(key);
  return keys;
}

TEST(LaunchProfile, TrainingShowsEveryRankAndCategory) {
  const TemporaryFolder folder;
  write_text(folder / "text.txt", std::string(20000, 'x'));
  const ProgramResult result =
      run_optp({"train", "--model", "opt-tiny", "--vocab-size", "260", "--train-data", (folder / "text.txt").string(),
                "--tp", "2", "--max-steps", "4", "--seq-len", "64", "--sample-tokens", "0", "--output",
                (folder / "run").string(), "--profile", (folder / "trace.json").string()});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("trace written to "));
  auto seconds = seconds_of(Json::parse(read_file(folder / "trace.json")));
  ASSERT_EQ(seconds.size(), 2U);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(keys_of(seconds[rank]),
                IsSupersetOf({"step", "data", "forward", "backward", "product", "communication", "optimizer"}))
        << "rank " << rank;
  }
  // Rank 0 has counted its steps and the waits in them itself.
  double step_seconds = 0, comm_seconds = 0;
  std::istringstream lines(read_file(folder / "run" / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json metrics = Json::parse(line);
    step_seconds += metrics.at("step_seconds").get<double>();
    comm_seconds += metrics.at("comm_seconds").get<double>();
  }
  EXPECT_NEAR(seconds[0]["step"], step_seconds, 0.05 * step_seconds);
  EXPECT_GT(seconds[0]["communication"], 0.9 * comm_seconds);
}

TEST(LaunchProfile, GenerationShowsEveryToken) {
  const TemporaryFolder folder;
  const ProgramResult result = run_optp({"generate", "--model", "opt-tiny", "--tp", "2", "--prompt-ids", "2,100,524",
                                         "--max-new-tokens", "5", "--profile", (folder / "trace.json").string()});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json trace = Json::parse(read_file(folder / "trace.json"));
  std::multiset<std::string> tokens;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.value("cat", "") == "step") tokens.insert(event.at("name").get<std::string>());
  }
  for (int token = 1; token <= 5; ++token) EXPECT_EQ(tokens.count("token " + std::to_string(token)), 2U) << token;
  EXPECT_THAT(keys_of(seconds_of(trace)[1]), IsSupersetOf({"product", "communication", "step"}));
}

TEST(LaunchProfile, AnUnwritableFileIsAnErrorBeforeTheWork) {
  const ProgramResult result = run_optp(
      {"generate", "--model", "opt-tiny", "--tp", "2", "--prompt-ids", "2", "--profile", "/no/such/folder/trace.json"});
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("/no/such/folder/trace.json"));
  EXPECT_EQ(result.out, "");
}

}  // namespace
}  // namespace optp::testing

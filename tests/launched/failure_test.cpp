// Ranks under a launcher, and a rank that dies.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

// Long enough to be interrupted; ends by itself in minutes.
const std::vector<std::string> kLong = {OPTP_PROGRAM,   "verify",    "--model",   "opt-tiny", "--tp",     "2",
                                        "--vocab-size", "500",       "--seq-len", "64",       "--epochs", "1000",
                                        "--checks",     "stability", "--timeout", "20"};

std::vector<std::string> with_report(std::vector<std::string> command, const TemporaryFolder& folder) {
  command.insert(command.end(), {"--report", (folder / "report.txt").string()});
  return command;
}

TEST(LaunchFailure, AKilledRankEndsTheRunWithStatus3) {
  for (const size_t victim : {0, 1}) {
    SCOPED_TRACE("rank " + std::to_string(victim));
    const TemporaryFolder folder;
    StartedProgram program(with_report(kLong, folder), {}, folder.path());
    wait_until([&] { return program.error_text().find("checking stability") != std::string::npos; });
    const std::vector<int> ranks = program.children();
    ASSERT_EQ(ranks.size(), 2U) << program.error_text();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const auto begin = std::chrono::steady_clock::now();
    kill(ranks[victim], SIGKILL);
    const ProgramResult result = program.wait(60);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(result.status, 3) << result.err;
    EXPECT_NE(result.err.find("rank " + std::to_string(victim) + " was killed by signal 9"), std::string::npos)
        << result.err;
    for (const int rank : ranks) EXPECT_EQ(kill(rank, 0), -1) << "a rank is left";
    EXPECT_EQ(read_file(folder / "report.txt"), "");
  }
}

TEST(LaunchFailure, InterruptAndTerminateEndAllRanks) {
  for (const auto& [signal, status] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    const TemporaryFolder folder;
    StartedProgram program(with_report(kLong, folder), {}, folder.path());
    wait_until([&] { return program.error_text().find("checking stability") != std::string::npos; });
    const std::vector<int> ranks = program.children();
    ASSERT_EQ(ranks.size(), 2U);
    kill(program.pid(), signal);
    EXPECT_EQ(program.wait(30).status, status);
    for (const int rank : ranks) EXPECT_EQ(kill(rank, 0), -1) << "a rank is left";
  }
}

// As torchrun, Slurm and Open MPI start ranks: each by itself, with its place in the environment.
TEST(LaunchEnvironment, EveryLauncherIsUnderstood) {
  const auto environment = [](int kind, int rank, const std::string& port) -> Environment {
    Environment all{{"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", port}};
    const std::string text = std::to_string(rank);
    if (kind == 0)
      all.merge(Environment{{"RANK", text}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", text}, {"LOCAL_WORLD_SIZE", "2"}});
    if (kind == 1) {
      all.merge(Environment{{"SLURM_STEP_ID", "0"},
                            {"SLURM_PROCID", text},
                            {"SLURM_NTASKS", "2"},
                            {"SLURM_STEP_NUM_TASKS", "2"},
                            {"SLURM_LOCALID", text},
                            {"SLURM_NNODES", "1"},
                            {"SLURM_STEP_NUM_NODES", "1"},
                            {"SLURM_STEP_TASKS_PER_NODE", "2"},
                            {"SLURM_TASKS_PER_NODE", "2"},
                            {"SLURM_NODEID", "0"}});
    }
    if (kind == 2) {
      all.merge(Environment{{"OMPI_COMM_WORLD_RANK", text},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", text},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
    }
    return all;
  };
  for (const int kind : {0, 1, 2}) {
    SCOPED_TRACE("launcher " + std::to_string(kind));
    const TemporaryFolder first, second;
    const std::string port = std::to_string(20000 + (getpid() * 3 + kind) % 10000);
    const std::vector<std::string> command = {
        OPTP_PROGRAM, "verify",       "--model", "opt-tiny",  "--tp", "2",        "--checks",
        "forward",    "--vocab-size", "99",      "--seq-len", "8",    "--report", (first / "report.txt").string()};
    StartedProgram other(command, environment(kind, 1, port), second.path());
    StartedProgram rank0(command, environment(kind, 0, port), first.path());
    const ProgramResult result = rank0.wait(120);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_TRUE(result.out.ends_with("Verdict: PASS\n"));
    const ProgramResult silent = other.wait(60);
    EXPECT_EQ(silent.status, 0) << silent.err;
    EXPECT_EQ(silent.out + silent.err, "");
  }
}

TEST(LaunchEnvironment, ARankThatNeverComesIsAnError) {
  const ProgramResult result = run_optp({"verify", "--model", "opt-tiny", "--tp", "2", "--timeout", "2"},
                                        {{"RANK", "0"},
                                         {"WORLD_SIZE", "2"},
                                         {"MASTER_ADDR", "127.0.0.1"},
                                         {"MASTER_PORT", std::to_string(31000 + getpid() % 1000)}});
  EXPECT_EQ(result.status, 3);
  EXPECT_TRUE(result.err.starts_with("optp: ")) << result.err;
}

}  // namespace
}  // namespace optp::testing

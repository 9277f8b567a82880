// `optp launch` on one host, from outside: what it prints, how it ends, and what it leaves behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// `optp launch` with these options, and a shell script as the program.
std::vector<std::string> launch_command(std::vector<std::string> options, const std::string& script) {
  options.insert(options.begin(), {OPTP_PROGRAM, "launch"});
  options.insert(options.end(), {"--", "sh", "-c", script});
  return options;
}

ProgramResult launch(const std::vector<std::string>& options, const std::string& script,
                     const Environment& environment = {}) {
  return run_program(launch_command(options, script), environment, 60);
}

std::vector<std::string> sorted_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  std::sort(lines.begin(), lines.end());
  return lines;
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Makes what a program leaves behind a child of this process.
void adopt_what_is_left() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

bool nothing_is_left(int seconds = 0) {
  return wait_until([] { return waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD; }, std::max(seconds, 1));
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// A rank with a child, a grandchild and a process in a session of its own.
const std::string kFamily =
    "sleep 600 & (sleep 600 & setsid sleep 600 & sleep 600) & setsid sh -c 'echo ready; sleep 600' & ";

TEST(LaunchCommand, LinesAreTaggedAndWhole) {
  // Both streams of both ranks into one file, lines written in pieces, some longer than a pipe takes at once.
  const TemporaryFolder folder;
  const std::string script =
      "long=$(printf '%5000d' 0); for i in $(seq 100); do printf \"$RANK:$i \"; printf '%s\\n' end; "
      "printf \"$RANK:$i $long\" >&2; echo end >&2; done; printf \"$RANK last\"";
  const std::string all = (folder / "all").string();
  std::vector<std::string> command = launch_command({"--nproc-per-node", "3"}, script);
  command.insert(command.begin(), {"sh", "-c", "exec \"$@\" > " + all + " 2>&1", "sh"});
  EXPECT_EQ(run_program(command).status, 0);

  const std::string long_part = std::string(4999, ' ') + "0";
  std::map<std::string, int> seen;
  std::istringstream lines(read_file(all));
  for (std::string line; std::getline(lines, line);) ++seen[line];
  for (const std::string rank : {"0", "1", "2"}) {
    for (int i = 1; i <= 100; ++i) {
      const std::string begin = "[rank " + rank + "] " + rank + ":" + std::to_string(i) + " ";
      EXPECT_EQ(seen[begin + "end"], 1);
      EXPECT_EQ(seen[begin + long_part + "end"], 1);
    }
    EXPECT_EQ(seen["[rank " + rank + "] " + rank + " last"], 1);
  }
  EXPECT_EQ(seen.size(), 603U);
}

TEST(LaunchCommand, StreamsStayApartAndRankZeroHasTheInput) {
  std::vector<std::string> command = launch_command({"--nproc_per_node=2", "--no_python", "--standalone"},
                                                    "read line; echo got $line; echo error >&2");
  command.insert(command.begin(), {"sh", "-c", "echo hello | exec \"$@\"", "sh"});
  const ProgramResult result = run_program(command);
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(sorted_lines(result.out), ElementsAre("[rank 0] got hello", "[rank 1] got"));
  EXPECT_THAT(sorted_lines(result.err), ElementsAre("[rank 0] error", "[rank 1] error"));
}

TEST(LaunchCommand, OneHostListensOnLoopbackAlone) {
  // The kernel's table of sockets: local address, remote address, 0A for those that listen.
  const ProgramResult result =
      launch({}, "printf '%04X\\n' $MASTER_PORT; grep -h \":$(printf '%04X' $MASTER_PORT) [0:]* 0A\" /proc/net/tcp*");
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(count_of(result.out, " 0A "), 1U) << result.out;
  EXPECT_THAT(result.out, HasSubstr(" 0100007F:"));
}

TEST(LaunchCommand, TheProgramHasItsOwnOptions) {
  const ProgramResult result = run_optp({"launch", "sh", "-c", "echo \"$@\"", "sh", "--config", "x", "--", "--help"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "[rank 0] --config x -- --help\n");
}

TEST(LaunchCommand, TheFirstFailureIsNamed) {
  // The others would run for minutes; the failed rank's last lines are shown, and its status is the launcher's.
  const double seconds = seconds_of([] {
    const ProgramResult result =
        launch({"--nproc-per-node", "3"},
               "[ $RANK = 1 ] || exec sleep 600; for i in $(seq 20); do echo line $i >&2; done; "
               "echo '\xff' >&2; exit 7");
    EXPECT_EQ(result.status, 7);
    EXPECT_THAT(result.err, HasSubstr("on host "));
    EXPECT_THAT(result.err,
                MatchesRegex("(.|\n)*\noptp: rank 1 on host [^ ]* exited with status 7; the last lines of its "
                             "standard error:\n  line 12\n(.|\n)*\n  line 20\n  [^\n]*\n"));
    EXPECT_EQ(count_of(result.err, "optp:"), 1U);
  });
  EXPECT_LT(seconds, 20);
}

TEST(LaunchCommand, ASignalThatKillsARankIsNamed) {
  for (const auto& [signal, name] : {std::pair{SIGKILL, "9 (Killed)"}, std::pair{SIGSEGV, "11 (Segmentation fault)"}}) {
    const ProgramResult result =
        launch({"--nproc-per-node", "2"}, "[ $RANK = 0 ] && kill -" + std::to_string(signal) + " $$; exec sleep 600");
    EXPECT_EQ(result.status, 128 + signal);
    EXPECT_THAT(result.err, MatchesRegex("optp: rank 0 on host [^ ]* was killed by signal .*\n"));
    EXPECT_THAT(result.err, HasSubstr(name));
  }
}

TEST(LaunchCommand, TheCauseIsNamedNotItsConsequence) {
  const ProgramResult result =
      launch({"--nproc-per-node", "2"}, "[ $RANK = 0 ] && exit 3; sleep 0.4; echo the cause >&2; exit 9");
  EXPECT_EQ(result.status, 9);
  EXPECT_THAT(result.err, HasSubstr("optp: rank 1 "));
}

TEST(LaunchCommand, ARankThatIgnoresTerminationIsKilled) {
  adopt_what_is_left();
  const double seconds = seconds_of([] {
    EXPECT_EQ(launch({"--nproc-per-node", "2"}, "[ $RANK = 1 ] && exit 5; trap '' TERM; sleep 600; sleep 600").status,
              5);
  });
  EXPECT_GE(seconds, 6);
  EXPECT_LT(seconds, 30);
  EXPECT_TRUE(nothing_is_left());
}

TEST(LaunchCommand, WhatRanksLeaveBehindEnds) {
  adopt_what_is_left();
  const double seconds =
      seconds_of([] { EXPECT_EQ(launch({"--nproc-per-node", "2"}, kFamily + "sleep 0.3").status, 0); });
  EXPECT_LT(seconds, 5);
  EXPECT_TRUE(nothing_is_left());
}

TEST(LaunchCommand, AKilledLauncherLeavesNothing) {
  adopt_what_is_left();
  const TemporaryFolder folder;
  StartedProgram program(launch_command({"--nproc-per-node", "2"}, kFamily + "sleep 600"), {}, folder.path());
  ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "ready") == 2; }));
  kill(program.pid(), SIGKILL);
  EXPECT_EQ(program.wait(10).status, 128 + SIGKILL);
  EXPECT_TRUE(nothing_is_left(10));
}

TEST(LaunchCommand, AKilledGuardLeavesNothing) {
  adopt_what_is_left();
  const TemporaryFolder folder;
  StartedProgram program(launch_command({"--nproc-per-node", "2"}, kFamily + "sleep 600"), {}, folder.path());
  ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "ready") == 2; }));
  ASSERT_EQ(program.children().size(), 1U);
  kill(program.children().front(), SIGKILL);
  const ProgramResult result = program.wait(10);
  EXPECT_EQ(result.status, 3);
  EXPECT_THAT(result.err, HasSubstr("that holds the ranks was killed by signal 9"));
  EXPECT_TRUE(nothing_is_left(10));
}

TEST(LaunchCommand, StopSignalsReachTheRanks) {
  adopt_what_is_left();
  // A rank that ends in order, also when it is below a shell that waits for it.
  const std::string plain = kFamily + "trap 'echo stopped; exit 0' INT TERM HUP; while sleep 0.05; do :; done";
  for (const auto& [signal, name] : {std::pair{SIGINT, "INT"}, std::pair{SIGTERM, "TERM"}, std::pair{SIGHUP, "HUP"}}) {
    const TemporaryFolder folder;
    StartedProgram program(launch_command({"--nproc-per-node", "2", "--max-restarts", "1"}, plain), {}, folder.path());
    ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "ready") == 2; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    kill(program.pid(), signal);
    const ProgramResult result = program.wait(20);
    EXPECT_EQ(result.status, 128 + signal);
    EXPECT_EQ(count_of(result.out, "] stopped\n"), 2U) << result.out;
    EXPECT_THAT(result.err, HasSubstr(std::string("optp: stopped by SIG") + name + "\n"));
    EXPECT_TRUE(nothing_is_left());
  }
}

TEST(LaunchCommand, AnInterruptReachesWhatAShellWaitsFor) {
  const TemporaryFolder folder;
  const std::string script =
      "sh -c 'trap \"echo inner; exit\" INT; echo ready; while :; do sleep 0.05; done'; echo outer";
  StartedProgram program(launch_command({}, script), {}, folder.path());
  ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "ready") == 1; }));
  kill(program.pid(), SIGINT);
  const ProgramResult result = program.wait(20);
  EXPECT_EQ(result.status, 130);
  EXPECT_THAT(result.out, HasSubstr("[rank 0] inner\n"));
}

TEST(LaunchCommand, ASecondRequestToStopKills) {
  adopt_what_is_left();
  const TemporaryFolder folder;
  StartedProgram program(launch_command({}, "trap '' INT TERM; echo ready; sleep 600; sleep 600"), {}, folder.path());
  ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "ready") == 1; }));
  kill(program.pid(), SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(1300));
  kill(program.pid(), SIGTERM);
  EXPECT_EQ(program.wait(5).status, 143);
  EXPECT_TRUE(nothing_is_left());
}

TEST(LaunchCommand, UserSignalsArePassedOn) {
  const TemporaryFolder folder;
  StartedProgram program(launch_command({"--nproc-per-node", "2"},
                                        "trap 'echo one' USR1; trap 'echo two; exit 0' USR2; echo ready; "
                                        "while sleep 0.05; do :; done"),
                         {}, folder.path());
  ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "ready") == 2; }));
  kill(program.pid(), SIGUSR1);
  ASSERT_TRUE(wait_until([&] { return count_of(program.output_text(), "] one") == 2; }));
  kill(program.pid(), SIGUSR2);
  const ProgramResult result = program.wait(20);
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(count_of(result.out, "] two"), 2U);
}

TEST(LaunchCommand, AStalledReaderDoesNotStopASignal) {
  adopt_what_is_left();
  const TemporaryFolder folder;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::vector<std::string> command =
      launch_command({}, "while :; do echo many words for someone who does not read; done");
  command.insert(command.begin(), {"sh", "-c", "exec \"$@\" >&" + std::to_string(ends[1]), "sh"});
  StartedProgram program(command, {}, folder.path());
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  kill(program.pid(), SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  kill(program.pid(), SIGTERM);
  EXPECT_EQ(program.wait(10).status, 143);
  close(ends[0]);
  close(ends[1]);
  EXPECT_TRUE(nothing_is_left());
}

TEST(LaunchCommand, RestartsAreCounted) {
  const std::string script =
      "echo $RANK count $TORCHELASTIC_RESTART_COUNT of $TORCHELASTIC_MAX_RESTARTS run $TORCHELASTIC_RUN_ID; "
      "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || { [ $RANK = 1 ] || exec sleep 600; exit 4; }";
  const ProgramResult result = launch({"--nproc-per-node", "2", "--max-restarts", "3", "--rdzv-id", "me"}, script);
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(sorted_lines(result.out),
              ElementsAre("[rank 0] 0 count 0 of 3 run me", "[rank 0] 0 count 1 of 3 run me",
                          "[rank 0] 0 count 2 of 3 run me", "[rank 1] 1 count 0 of 3 run me",
                          "[rank 1] 1 count 1 of 3 run me", "[rank 1] 1 count 2 of 3 run me"));
  EXPECT_THAT(result.err,
              MatchesRegex("optp: rank 1 on host [^ ]* exited with status 4; starting all ranks again, restart 1 "
                           "of 3\noptp: .*; starting all ranks again, restart 2 of 3\n"));
}

TEST(LaunchCommand, RestartsEnd) {
  const ProgramResult result = launch({"--max-restarts", "1"}, "echo x; exit 6");
  EXPECT_EQ(result.status, 6);
  EXPECT_EQ(result.out, "[rank 0] x\n[rank 0] x\n");
  EXPECT_THAT(result.err, MatchesRegex("optp: .* restart 1 of 1\noptp: rank 0 on host [^ ]* exited with status 6\n"));
}

TEST(LaunchCommand, LogsHoldWhatEachRankPrinted) {
  const TemporaryFolder folder;
  const auto logs = folder / "a/logs";
  const ProgramResult result =
      launch({"--nproc-per-node", "2", "--max-restarts", "1", "--log-dir", logs.string(), "--rdzv-id", "me"},
             "echo out $RANK; printf 'no end %s' $TORCHELASTIC_RESTART_COUNT >&2; [ $TORCHELASTIC_RESTART_COUNT = 1 ]");
  EXPECT_EQ(result.status, 0);
  for (const std::string attempt : {"0", "1"}) {
    for (const std::string rank : {"0", "1"}) {
      const auto rank_folder = logs / "me" / ("attempt_" + attempt) / rank;
      EXPECT_EQ(read_file(rank_folder / "stdout.log"), "out " + rank + "\n");
      EXPECT_EQ(read_file(rank_folder / "stderr.log"), "no end " + attempt);
      struct stat about{};
      stat((rank_folder / "stdout.log").c_str(), &about);
      EXPECT_EQ(about.st_mode & 0777, 0600U);
      stat(rank_folder.c_str(), &about);
      EXPECT_EQ(about.st_mode & 0777, 0700U);
    }
  }
  EXPECT_EQ(count_of(result.out, "out"), 4U);
}

TEST(LaunchCommand, BadUsageIsOneSentence) {
  const TemporaryFolder folder;
  write_text(folder / "script.py", "");
  write_text(folder / "text", "");
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"launch needs a program", {}},
      {"launch needs a program", {"--nproc-per-node", "2", "--"}},
      {"--nproc-per-node is \"0\": give a number of ranks", {"--nproc-per-node", "0", "true"}},
      {"--nproc-per-node is \"2x\"", {"--nproc-per-node", "2x", "true"}},
      {"--nnodes is 2, but nothing says where", {"--nnodes", "2", "true"}},
      {"--nnodes is \"1:4\": the number of hosts is fixed", {"--nnodes", "1:4", "true"}},
      {"--node-rank is \"2\": give this host's number",
       {"--nnodes", "2", "--node-rank", "2", "--master-addr", "127.0.0.1", "true"}},
      {"--master-port is \"65536\": give a port", {"--master-port", "65536", "true"}},
      {"the port of --rdzv-endpoint is \"b\"", {"--rdzv-endpoint", "a:b", "true"}},
      {"--rdzv-endpoint is \"::1:5\": give HOST:PORT", {"--rdzv-endpoint", "::1:5", "true"}},
      {"leave one of them out", {"--rdzv-endpoint", "a:1", "--master-port", "2", "true"}},
      {"--standalone is for one host", {"--standalone", "--nnodes", "2", "true"}},
      {"--max-restarts is \"-1\"", {"--max-restarts=-1", "true"}},
      {"--rdzv-id is \"a/b\"", {"--rdzv-id", "a/b", "true"}},
      {"not expected", {"--no-such-option=1", "true"}},
      {"--nproc-per-node", {"--nproc-per-node"}},
      {"\"no-such-program\" is in no folder of PATH", {"--", "no-such-program"}},
      {"there is no program \"./no-such-program\"", {"./no-such-program"}},
      {"write python3 ", {(folder / "script.py").string()}},
      {"make the file executable", {(folder / "text").string()}},
      {"name another with --log-dir", {"--log-dir", (folder / "text").string(), "true"}},
      {"cannot make the folder /proc/optp", {"--log-dir", "/proc/optp", "true"}},
  };
  for (const auto& [sentence, arguments] : cases) {
    std::vector<std::string> command{"launch"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const ProgramResult result = run_optp(command, {}, 20);
    EXPECT_EQ(result.status, 2) << sentence << "\n" << result.err;
    EXPECT_THAT(result.err, HasSubstr(sentence));
    EXPECT_THAT(result.err, MatchesRegex("optp: [^\n]*\n"));
    EXPECT_EQ(result.out, "");
  }
}

}  // namespace
}  // namespace optp::testing

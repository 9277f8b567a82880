// `optp launch` on several hosts, which here are several launchers on this one.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

using ::testing::HasSubstr;

std::string free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return std::to_string(ntohs(address.sin_port));
}

// A launcher and the folder with its output.
struct Node {
  Node(std::vector<std::string> options, const std::string& script)
      : program(command(std::move(options), script), {}, folder.path()) {}

  static std::vector<std::string> command(std::vector<std::string> options, const std::string& script) {
    options.insert(options.begin(), {OPTP_PROGRAM, "launch"});
    options.insert(options.end(), {"--", "sh", "-c", script});
    return options;
  }

  bool wait_for(const std::string& text) const {
    for (int i = 0; i < 3000 && program.output_text().find(text) == std::string::npos; ++i) usleep(10000);
    return program.output_text().find(text) != std::string::npos;
  }

  TemporaryFolder folder;
  StartedProgram program;
};

// Node `rank` of two.
std::unique_ptr<Node> start_node(const std::string& port, int rank, const std::string& script,
                                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> options = {"--nnodes",      "2",         "--node-rank",   std::to_string(rank),
                                      "--master-addr", "127.0.0.1", "--master-port", port};
  options.insert(options.end(), more.begin(), more.end());
  return std::make_unique<Node>(options, script);
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(LaunchNodes, RanksAreCountedOverAllHosts) {
  // The second launcher comes first, and has another number of ranks.
  const std::string port = free_port();
  const std::string script =
      "echo $RANK $LOCAL_RANK of $WORLD_SIZE $LOCAL_WORLD_SIZE group $GROUP_RANK of $GROUP_WORLD_SIZE role $ROLE_RANK "
      "at "
      "$MASTER_ADDR $MASTER_PORT";
  const auto second = start_node(port, 1, script, {"--nproc-per-node", "1"});
  usleep(300000);
  const auto first = start_node(port, 0, script, {"--nproc-per-node", "2"});
  const ProgramResult results[] = {first->program.wait(30), second->program.wait(30)};
  EXPECT_EQ(results[0].status, 0) << results[0].err;
  EXPECT_EQ(results[1].status, 0) << results[1].err;
  const std::string at = " at 127.0.0.1 " + port + "\n";
  EXPECT_THAT(results[0].out, HasSubstr("[rank 0] 0 0 of 3 2 group 0 of 2 role 0" + at));
  EXPECT_THAT(results[0].out, HasSubstr("[rank 1] 1 1 of 3 2 group 0 of 2 role 1" + at));
  EXPECT_EQ(results[1].out, "[rank 2] 2 0 of 3 1 group 1 of 2 role 2" + at);
  EXPECT_EQ(results[0].err + results[1].err, "");
}

TEST(LaunchNodes, HostsNeedNoNumbers) {
  const std::string endpoint = "localhost:" + free_port();
  const std::vector<std::string> options = {"--nnodes=3", "--rdzv_backend=c10d", "--rdzv_endpoint=" + endpoint};
  std::vector<std::unique_ptr<Node>> nodes;
  for (int i = 0; i < 3; ++i) nodes.push_back(std::make_unique<Node>(options, "echo of $WORLD_SIZE"));
  std::string all;
  for (const auto& node : nodes) {
    const ProgramResult result = node->program.wait(30);
    EXPECT_EQ(result.status, 0) << result.err;
    all += result.out;
  }
  for (const std::string rank : {"0", "1", "2"}) EXPECT_THAT(all, HasSubstr("[rank " + rank + "] of 3\n"));
}

TEST(LaunchNodes, AFailureEndsAllHosts) {
  const std::string port = free_port();
  const std::string script = "[ $RANK = 2 ] || exec sleep 600; sleep 0.3; echo why >&2; exit 7";
  const auto first = start_node(port, 0, script, {"--nproc-per-node", "2"});
  const auto second = start_node(port, 1, script, {"--nproc-per-node", "2"});
  for (const auto* node : {&first, &second}) {
    const ProgramResult result = (*node)->program.wait(30);
    EXPECT_EQ(result.status, 7);
    EXPECT_THAT(result.err, HasSubstr("optp: rank 2 on node 1 (host "));
    EXPECT_THAT(result.err, HasSubstr(") exited with status 7; the last lines of its standard error:\n  why\n"));
  }
}

TEST(LaunchNodes, TheCauseOnAnotherHostIsNamed) {
  // Rank 0 sees no more than that rank 1 is gone, and is the first to say so.
  const std::string port = free_port();
  const std::string script = "[ $RANK = 0 ] && exit 3; sleep 0.5; kill -9 $$";
  const auto first = start_node(port, 0, script);
  const auto second = start_node(port, 1, script);
  for (const auto* node : {&first, &second}) {
    const ProgramResult result = (*node)->program.wait(30);
    EXPECT_EQ(result.status, 137);
    EXPECT_THAT(result.err, HasSubstr("optp: rank 1 on node 1 (host "));
  }
}

TEST(LaunchNodes, AllHostsRestart) {
  const std::string port = free_port();
  const std::string script =
      "echo attempt $TORCHELASTIC_RESTART_COUNT; [ $TORCHELASTIC_RESTART_COUNT = 1 ] || { [ $RANK = 1 ] && exit 4; "
      "exec sleep 600; }";
  const auto first = start_node(port, 0, script, {"--max-restarts", "2"});
  const auto second = start_node(port, 1, script, {"--max-restarts", "2"});
  for (const auto* node : {&first, &second}) {
    const ProgramResult result = (*node)->program.wait(30);
    EXPECT_EQ(result.status, 0);
    EXPECT_THAT(result.out, HasSubstr("attempt 0\n"));
    EXPECT_THAT(result.out, HasSubstr("attempt 1\n"));
    EXPECT_THAT(result.err, HasSubstr("exited with status 4; starting all ranks again, restart 1 of 2\n"));
  }
}

TEST(LaunchNodes, AStopOnOneHostStopsAll) {
  const std::string port = free_port();
  // The other host's rank takes its time to end.
  const std::string script = "trap 'sleep 4; echo saved; exit 0' TERM; echo ready; while sleep 0.05; do :; done";
  const auto first = start_node(port, 0, "trap 'exit 0' TERM; echo ready; while sleep 0.05; do :; done");
  const auto second = start_node(port, 1, script);
  ASSERT_TRUE(first->wait_for("ready") && second->wait_for("ready"));
  kill(first->program.pid(), SIGTERM);
  const ProgramResult results[] = {first->program.wait(30), second->program.wait(30)};
  EXPECT_EQ(results[0].status, 143);
  EXPECT_EQ(results[1].status, 143);
  EXPECT_EQ(results[0].err, "optp: stopped by SIGTERM\n");
  EXPECT_EQ(results[1].err, "optp: stopped by SIGTERM to the launcher of node 0\n");
  EXPECT_THAT(results[1].out, HasSubstr("saved"));
}

TEST(LaunchNodes, ALostHostIsNoticed) {
  // Four runs at once: node 1 or node 0, killed or stopped.
  const std::string script = "echo ready; exec sleep 600";
  struct Case {
    int victim;
    int signal;
    std::string sentence;
    std::unique_ptr<Node> nodes[2];
  };
  std::vector<Case> cases;
  cases.push_back({1, SIGKILL, "optp: node 1 (host ", {}});
  cases.push_back({1, SIGSTOP, "has been silent for 10 s: its launcher has died", {}});
  cases.push_back({0, SIGKILL, "optp: the launcher of node 0 at 127.0.0.1 port ", {}});
  cases.push_back({0, SIGSTOP, "optp: node 0's launcher has not answered for 10 s", {}});
  for (Case& run : cases) {
    const std::string port = free_port();
    for (const int rank : {0, 1}) run.nodes[rank] = start_node(port, rank, script, {"--max-restarts", "1"});
    for (const auto& node : run.nodes) ASSERT_TRUE(node->wait_for("ready"));
  }
  const auto begin = std::chrono::steady_clock::now();
  for (Case& run : cases) kill(run.nodes[run.victim]->program.pid(), run.signal);
  for (Case& run : cases) {
    const ProgramResult result = run.nodes[1 - run.victim]->program.wait(30);
    EXPECT_LT(seconds_since(begin), 25);
    EXPECT_EQ(result.status, 3);
    EXPECT_THAT(result.err, HasSubstr(run.sentence));
    kill(run.nodes[run.victim]->program.pid(), SIGKILL);
  }
}

TEST(LaunchNodes, ContradictionsAreOneSentence) {
  const std::string port = free_port();
  const auto first = start_node(port, 0, "sleep 600", {"--rdzv-id", "mine"});
  const auto refused = [&](const std::vector<std::string>& options, const std::string& sentence) {
    std::vector<std::string> all = {"--master-addr", "127.0.0.1", "--master-port", port};
    all.insert(all.end(), options.begin(), options.end());
    const ProgramResult result = Node(all, "true").program.wait(30);
    EXPECT_EQ(result.status, 2) << sentence;
    EXPECT_THAT(result.err, ::testing::MatchesRegex("optp: [^\n]*\n"));
    EXPECT_THAT(result.err, HasSubstr(sentence));
  };
  refused({"--nnodes", "3", "--node-rank", "1"}, "--nnodes is 3, but the launcher at 127.0.0.1 port " + port);
  refused({"--nnodes", "2", "--node-rank", "1", "--rdzv-id", "yours"}, "--rdzv-id is yours, but");
  const auto second = start_node(port, 1, "echo ready; sleep 600");
  ASSERT_TRUE(second->wait_for("ready"));
  refused({"--nnodes", "2", "--node-rank", "1"}, "--node-rank is 1, which another launcher at");
  kill(first->program.pid(), SIGTERM);
  EXPECT_EQ(first->program.wait(30).status, 143);
  EXPECT_EQ(second->program.wait(30).status, 143);
}

TEST(LaunchNodes, AHostThatNeverComesIsAnError) {
  const std::string port = free_port();
  const ProgramResult alone = start_node(port, 0, "true", {"--timeout", "1"})->program.wait(30);
  EXPECT_EQ(alone.status, 3);
  EXPECT_THAT(alone.err,
              HasSubstr("optp: waited 1 s at 127.0.0.1 port " + port + " for the launcher of node 1 of 2: start"));
  const ProgramResult other = start_node(port, 1, "true", {"--timeout", "1"})->program.wait(30);
  EXPECT_EQ(other.status, 3);
  EXPECT_THAT(other.err, HasSubstr("optp: this launcher could not reach the store at 127.0.0.1 port " + port));
  // An interrupt ends the wait.
  const auto waiting = start_node(port, 0, "true");
  usleep(500000);
  kill(waiting->program.pid(), SIGTERM);
  EXPECT_EQ(waiting->program.wait(5).status, 143);
}

}  // namespace
}  // namespace optp::testing

// rendezvous: ranks meet, here as threads; who listens where; and what is said when they cannot meet.
#include "parallel/rendezvous.h"

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <unistd.h>

#include <fstream>
#include <future>
#include <set>
#include <sstream>

namespace optp {
namespace {

using StorePtr = c10::intrusive_ptr<c10d::Store>;

constexpr auto kTimeout = std::chrono::milliseconds(30000);

int free_port() {
  const ListeningSocket socket = listen_on_loopback();
  close(socket.fd);
  return socket.port;
}

LaunchEnv env_of(int rank, int world_size, const std::string& address, int port) {
  LaunchEnv env;
  env.rank = env.local_rank = rank;
  env.world_size = env.local_world_size = world_size;
  env.master_addr = address;
  env.master_port = port;
  return env;
}

// Rank 0 and rank 1 meet, each as its environment says.
std::vector<StorePtr> meet(const LaunchEnv& first, const LaunchEnv& second, const std::string& interface = "") {
  auto other = std::async(std::launch::async, [&] { return rendezvous(second, kTimeout); });
  const StorePtr store = rendezvous(first, kTimeout, interface);
  return {store, other.get()};
}

std::vector<StorePtr> meet(const std::string& address, int port) {
  return meet(env_of(0, 2, address, port), env_of(1, 2, address, port));
}

// The local addresses that listen on `port`, in hexadecimal as the kernel prints them.
std::set<std::string> listeners(int port) {
  std::set<std::string> result;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
      std::istringstream columns(line);
      std::string number, local, remote, state;
      columns >> number >> local >> remote >> state;
      const size_t colon = local.find(':');
      if (state == "0A" && std::stoi(local.substr(colon + 1), nullptr, 16) == port)
        result.insert(local.substr(0, colon));
    }
  }
  return result;
}

const std::set<std::string> kOnlyLoopback = {"0100007F"};

// The sentence with which rendezvous fails, and nothing else may reach standard error. (c10d's warnings are off, since
// it warns of each address without a name, which on a machine without a name server is every address.)
std::string complaint(const LaunchEnv& env, std::chrono::milliseconds timeout) {
  FLAGS_caffe2_log_level = c10::GLOG_ERROR;
  std::string text;
  ::testing::internal::CaptureStderr();
  try {
    rendezvous(env, timeout);
  } catch (const c10::DistBackendError& error) {
    text = error.what_without_backtrace();
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  return text;
}

void expect_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in " << text;
}

TEST(RendezvousTest, TwoRanksMeetAndOnlyLoopbackListens) {
  for (const std::string address : {"127.0.0.1", "localhost"}) {
    const int port = free_port();
    const auto stores = meet(address, port);
    stores[0]->set("key", "from rank 0");
    EXPECT_EQ(stores[1]->get_to_str("key"), "from rank 0");
    EXPECT_EQ(listeners(port), kOnlyLoopback);
  }
}

TEST(RendezvousTest, NothingListensAfterwards) {
  const int port = free_port();
  meet("127.0.0.1", port);
  EXPECT_EQ(listeners(port), std::set<std::string>());
}

TEST(RendezvousTest, InterfaceDecidesWhereRankZeroListens) {
  // Rank 0 needs no name of its own that it can resolve; rank 1 uses an address that works.
  int port = free_port();
  {
    const auto stores = meet(env_of(0, 2, "rank-0.invalid", port), env_of(1, 2, "127.0.0.1", port), "lo");
    EXPECT_EQ(listeners(port), kOnlyLoopback);
  }
  port = free_port();
  const auto stores = meet(env_of(0, 2, "rank-0.invalid", port), env_of(1, 2, "127.0.0.1", port));
  EXPECT_EQ(listeners(port).count("0100007F"), 0u);
  EXPECT_EQ(listeners(port).size(), 1u);
}

TEST(RendezvousTest, LaunchersStoreSurvivesRestartsAndRepetitions) {
  const ListeningSocket listening = listen_on_loopback();
  const StorePtr server = serve_store(listening, kTimeout);
  LaunchEnv first = env_of(0, 2, "127.0.0.1", listening.port);
  LaunchEnv second = env_of(1, 2, "127.0.0.1", listening.port);
  first.use_agent_store = second.use_agent_store = true;
  std::vector<std::vector<StorePtr>> meetings;
  for (const int restart_count : {0, 0, 1}) {
    first.restart_count = second.restart_count = restart_count;
    meetings.push_back(meet(first, second));
    EXPECT_FALSE(meetings.back()[0]->check({"key"}));
    meetings.back()[0]->set("key", "set");
    EXPECT_TRUE(meetings.back()[1]->check({"key"}));
  }
}

TEST(RendezvousTest, ARankOfAnotherRunIsRefused) {
  const ListeningSocket listening = listen_on_loopback();
  const StorePtr server = serve_store(listening, kTimeout);
  EXPECT_TRUE(claim_store(*server, "this run"));
  EXPECT_TRUE(claim_store(*server, "this run"));
  EXPECT_FALSE(claim_store(*server, "that run"));
  LaunchEnv stranger = env_of(1, 2, "127.0.0.1", listening.port);
  stranger.use_agent_store = true;
  stranger.run_token = "that run";
  expect_contains(complaint(stranger, kTimeout),
                  {"rank 1", "found the store of another run at 127.0.0.1", "MASTER_PORT of its own"});
}

TEST(RendezvousTest, WorldOfOneOpensNoSocket) {
  const StorePtr store = rendezvous(LaunchEnv(), kTimeout);
  EXPECT_NE(dynamic_cast<c10d::HashStore*>(store.get()), nullptr);
}

TEST(RendezvousTest, UnreachableStoreIsReportedInTime) {
  const int port = free_port();
  const auto start = std::chrono::steady_clock::now();
  const std::string text = complaint(env_of(1, 2, "127.0.0.1", port), std::chrono::milliseconds(1000));
  const auto elapsed = std::chrono::steady_clock::now() - start;
  expect_contains(text, {"rank 1 could not reach the store at 127.0.0.1 port " + std::to_string(port) + " within 1 s",
                         "127.0.0.1: Connection refused", "check that rank 0 runs there"});
  EXPECT_GE(elapsed, std::chrono::milliseconds(1000));
  EXPECT_LT(elapsed, std::chrono::milliseconds(3000));
}

TEST(RendezvousTest, SilentServerIsReportedInTime) {
  const ListeningSocket silent = listen_on_loopback();
  const auto start = std::chrono::steady_clock::now();
  const std::string text = complaint(env_of(1, 2, "127.0.0.1", silent.port), std::chrono::milliseconds(1000));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(4000));
  expect_contains(text, {"rank 1 got no answer from the store at 127.0.0.1 port " + std::to_string(silent.port)});
  // The socket stays open, for the thread that still waits.
}

TEST(RendezvousTest, MissingRanksAreNamed) {
  const int port = free_port();
  [[maybe_unused]] const auto other = std::async(std::launch::async, [&] {
    EXPECT_THROW(rendezvous(env_of(2, 4, "127.0.0.1", port), std::chrono::milliseconds(1000)), c10::DistBackendError);
  });
  const std::string text = complaint(env_of(0, 4, "127.0.0.1", port), std::chrono::milliseconds(2000));
  expect_contains(text, {"rank 0 waited 2 s at 127.0.0.1 port", "for rank 1, 3 of 4: check that "});
}

TEST(RendezvousTest, TakenPortIsReported) {
  const ListeningSocket taken = listen_on_loopback();
  const std::string text = complaint(env_of(0, 2, "127.0.0.1", taken.port), kTimeout);
  expect_contains(text, {"cannot listen on 127.0.0.1 port " + std::to_string(taken.port) + " (Address already in use)",
                         "choose another MASTER_PORT"});
  const std::string elsewhere = complaint(env_of(0, 2, "rank-0.invalid", taken.port), kTimeout);
  expect_contains(elsewhere, {"port " + std::to_string(taken.port), "address already in use", "another MASTER_PORT"});
  close(taken.fd);
}

TEST(RendezvousTest, InterfaceAddress) {
  EXPECT_EQ(interface_address("lo"), "127.0.0.1");
  try {
    interface_address("no-such-interface");
    FAIL() << "an unknown interface was accepted";
  } catch (const c10::ValueError& error) {
    expect_contains(error.what_without_backtrace(), {"\"no-such-interface\" is no network interface", "lo"});
  }
}

}  // namespace
}  // namespace optp

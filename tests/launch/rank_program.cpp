// A program that runs itself on several ranks, which then behave as the first argument says. For local_ranks_test.
#include <c10/util/Logging.h>
#include <fcntl.h>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "parallel/launch_env.h"
#include "parallel/rendezvous.h"
#include "src/launch/local_ranks.h"

namespace {

int sleep_long() {
  sleep(600);
  return 0;
}

int die() {
  raise(SIGKILL);
  return 0;
}

int say(const std::string& text, int status) {
  std::cerr << text << "\n" << std::flush;
  return status;
}

int meet(const optp::LaunchEnv& env) {
  const auto store = optp::rendezvous(env, std::chrono::seconds(60));
  const int64_t sum = store->add("sum", env.rank);
  if (sum == env.world_size * (env.world_size - 1) / 2) store->set("done", std::to_string(sum));
  const std::string total = store->get_to_str("done");
  if (env.rank == 0) std::cout << "sum " << total << " port " << env.master_port << "\n" << std::flush;
  return 0;
}

// What the rank inherited: input, descriptors, variables, blocked signals.
int describe(int rank) {
  std::string input;
  std::getline(std::cin, input);
  int open_files = 0;
  for (int fd = 3; fd < 1024; ++fd) open_files += fcntl(fd, F_GETFD) >= 0;
  sigset_t blocked;
  sigprocmask(SIG_BLOCK, nullptr, &blocked);
  std::cout << "rank " << rank << " input '" << input << "' open files " << open_files << " blocked "
            << sigismember(&blocked, SIGINT) + sigismember(&blocked, SIGTERM) + sigismember(&blocked, SIGCHLD);
  for (const char* name : {"LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
                           "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "INHERITED"}) {
    std::cout << " " << name << "=" << optp::process_environment(name).value_or("(none)");
  }
  std::cout << "\n" << std::flush;
  return rank == 1 ? 9 : 0;
}

// Waits for a signal, gives a second one time to come, and ends as a rank does that was interrupted in order.
int count_signals(const optp::LaunchEnv& env) {
  static volatile std::sig_atomic_t signals_seen = 0;
  static volatile std::sig_atomic_t last = 0;
  const auto count = [](int signal) {
    signals_seen = signals_seen + 1;
    last = signal;
  };
  std::signal(SIGINT, count);
  std::signal(SIGTERM, count);
  optp::rendezvous(env, std::chrono::seconds(60));  // no rank is without handlers now
  if (env.rank == 0) std::cout << "ready\n" << std::flush;
  while (signals_seen == 0) usleep(10000);
  for (int wait = 0; wait < 50; ++wait) usleep(10000);
  if (env.rank == 0) std::cout << "signals " << signals_seen << "\n" << std::flush;
  return 128 + last;
}

int sleep_ready(const optp::LaunchEnv& env) {
  if (env.rank == 0) std::cout << "ready\n" << std::flush;
  return sleep_long();
}

int behave(const std::string& how, const optp::LaunchEnv& env) {
  const bool first = env.rank == 0;
  if (how == "describe") return describe(env.rank);
  if (how == "deaf") std::signal(SIGINT, SIG_IGN);
  optp::rendezvous(env, std::chrono::seconds(60));  // on a busy machine a rank can start seconds after another
  if (how == "meet") return meet(env);
  if (how == "same-error") return say("optp: bad input", 2);
  if (how == "one-error") return first ? sleep_long() : say("first line\nsecond line", 2);
  if (how == "other-error") return first ? say("rank 0 speaks", 0) : say("rank 1 speaks", 3);
  if (how == "killed") return first ? sleep_long() : die();
  if (how == "first-fails") return first ? 3 : sleep_long();
  if (how == "verdict") return first ? (sleep(2), say("report written", 1)) : 1;
  if (how == "stubborn") return first ? 2 : (std::signal(SIGTERM, SIG_IGN), sleep_long());
  // Rank 0 loses contact before rank 1, whose fault it is, has ended.
  if (how == "consequence") return first ? 3 : (usleep(300000), say("the cause", 2));
  if (how == "chatty") {
    if (first) return 0;
    for (int line = 0; line < 20000; ++line) std::cout << "line " << line << "\n";
    return 4;
  }
  if (how == "sleep" || how == "deaf") return sleep_ready(env);
  if (how == "count-signals") return count_signals(env);
  return say("unknown behaviour " + how, 99);
}

}  // namespace

int main(int argc, char** argv) {
  FLAGS_caffe2_log_level = c10::GLOG_ERROR;  // as the real program: c10d warns of every address without a name
  const std::string how = argc > 1 ? argv[1] : "";
  if (const auto env = optp::read_launch_env()) return behave(how, *env);
  return optp::run_local_ranks(argc > 2 ? std::stoi(argv[2]) : 2, std::vector<std::string>(argv, argv + argc));
}

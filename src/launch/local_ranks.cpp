#include "src/launch/local_ranks.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>

#include "parallel/rendezvous.h"
#include "src/launch/child_process.h"

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;
using Ranks = std::vector<std::unique_ptr<ChildProcess>>;

constexpr auto kGrace = std::chrono::seconds(1);
constexpr auto kTerminationTime = std::chrono::seconds(5);
constexpr auto kStoreTimeout = std::chrono::seconds(30);

// Exit statuses of the program, as its users know them.
constexpr int kCheckFailed = 1;
constexpr int kBadInput = 2;
constexpr int kRankFailed = 3;

bool exited_with(int wait_status, int status) { return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == status; }

// Turns SIGCHLD, SIGINT and SIGTERM into something to read, while it lives.
class SignalQueue {
 public:
  SignalQueue() {
    // A parent can leave SIGCHLD ignored, and then no status of a child can be read.
    std::signal(SIGCHLD, SIG_DFL);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    for (const int signal : {SIGINT, SIGTERM}) {
      struct sigaction action{};
      sigaction(signal, nullptr, &action);
      // A shell lets background jobs ignore SIGINT, and then this must too.
      if (action.sa_handler != SIG_IGN) sigaddset(&signals, signal);
    }
    sigprocmask(SIG_BLOCK, &signals, &previous_mask_);
    fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    TORCH_CHECK(fd_ >= 0, "cannot wait for signals: ", std::strerror(errno));
  }
  ~SignalQueue() {
    // A signal that came twice must not end the process now that the answer to the first is known.
    signalfd_siginfo ignored;
    while (next(ignored)) {
    }
    close(fd_);
    sigprocmask(SIG_SETMASK, &previous_mask_, nullptr);
  }
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;

  int fd() const { return fd_; }
  const sigset_t& previous_mask() const { return previous_mask_; }
  bool next(signalfd_siginfo& info) { return read(fd_, &info, sizeof(info)) == sizeof(info); }

 private:
  int fd_ = -1;
  sigset_t previous_mask_;
};

// Waits for the ranks and ends them all when one fails.
class Supervisor {
 public:
  Supervisor(const Ranks& ranks, SignalQueue& signals) : ranks_(ranks), signals_(signals) {}

  int run() {
    while (std::any_of(ranks_.begin(), ranks_.end(), [](const auto& rank) { return rank->running(); })) {
      wait_for_events();
      signalfd_siginfo info;
      while (signals_.next(info)) {
        if (info.ssi_signo != SIGCHLD) on_interrupt(info);
      }
      for (size_t rank = 0; rank < ranks_.size(); ++rank) {
        ranks_[rank]->read_output();
        if (ranks_[rank]->reap()) on_end(static_cast<int>(rank));
      }
      if (stage_ != Stage::kRunning && Clock::now() >= deadline_) escalate();
    }
    return conclude();
  }

 private:
  enum class Stage { kRunning, kGrace, kTerminating, kKilling };

  void wait_for_events() {
    std::vector<pollfd> fds = {{signals_.fd(), POLLIN, 0}};
    for (const auto& rank : ranks_) {
      if (rank->running()) fds.push_back({rank->output_fd(), POLLIN, 0});  // poll ignores -1
    }
    int milliseconds = -1;
    if (stage_ == Stage::kGrace || stage_ == Stage::kTerminating) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
      milliseconds = static_cast<int>(std::max<int64_t>(left.count(), 0));
    }
    poll(fds.data(), fds.size(), milliseconds);
  }

  void on_interrupt(const signalfd_siginfo& info) {
    const int signal = static_cast<int>(info.ssi_signo);
    if (interrupted_by_ == 0 && stage_ <= Stage::kGrace) {
      interrupted_by_ = signal;
      interrupted_at_ = Clock::now();
      // From the kernel means from the terminal, which sends it to the ranks as well.
      if (info.ssi_code != SI_KERNEL) send_all(signal);
    } else if (Clock::now() - interrupted_at_ > std::chrono::seconds(1)) {
      // Someone insists. Sooner it is the same request twice, which `timeout`, for one, sends.
      stage_ = Stage::kKilling;
      send_all(SIGKILL);
    }
  }

  void on_end(int rank) {
    const int status = ranks_[static_cast<size_t>(rank)]->wait_status();
    if (exited_with(status, 0) || stage_ >= Stage::kTerminating) return;
    if (interrupted_by_ != 0 && exited_with(status, 128 + interrupted_by_)) return;
    failures_.push_back(rank);
    if (stage_ == Stage::kRunning && !exited_with(status, kCheckFailed)) {
      stage_ = Stage::kGrace;
      deadline_ = Clock::now() + kGrace;
    }
  }

  void escalate() {
    const bool terminate = stage_ == Stage::kGrace;
    stage_ = terminate ? Stage::kTerminating : Stage::kKilling;
    deadline_ = Clock::now() + kTerminationTime;
    send_all(terminate ? SIGTERM : SIGKILL);
  }

  void send_all(int signal) {
    for (const auto& rank : ranks_) rank->send(signal);
  }

  int conclude() const {
    if (interrupted_by_ != 0) return 128 + interrupted_by_;
    if (failures_.empty()) return 0;
    const int cause = find_cause();
    const int status = wait_status(cause);
    const bool rank_0_said_it = std::any_of(failures_.begin(), failures_.end(),
                                            [&](int rank) { return rank == 0 && wait_status(rank) == status; });
    if (!rank_0_said_it) show_output(cause);
    if (exited_with(status, kCheckFailed) || exited_with(status, kBadInput)) return WEXITSTATUS(status);
    if (WIFSIGNALED(status)) {
      std::cerr << "optp: rank " << cause << " was killed by signal " << WTERMSIG(status) << " ("
                << strsignal(WTERMSIG(status)) << ")" << '\n';
    } else {
      std::cerr << "optp: rank " << cause << " exited with status " << WEXITSTATUS(status) << '\n';
    }
    return kRankFailed;
  }

  int wait_status(int rank) const { return ranks_[static_cast<size_t>(rank)]->wait_status(); }

  int find_cause() const {
    if (!exited_with(wait_status(failures_.front()), kRankFailed)) return failures_.front();
    const auto explains = [&](int rank) {
      return !exited_with(wait_status(rank), kRankFailed) && !exited_with(wait_status(rank), kCheckFailed);
    };
    const auto found = std::find_if(failures_.begin(), failures_.end(), explains);
    return found == failures_.end() ? failures_.front() : *found;
  }

  void show_output(int rank) const {
    std::istringstream lines(ranks_[static_cast<size_t>(rank)]->output());
    for (std::string line; std::getline(lines, line);) std::cerr << "[rank " << rank << "] " << line << '\n';
  }

  const Ranks& ranks_;
  SignalQueue& signals_;
  Stage stage_ = Stage::kRunning;
  Clock::time_point deadline_;  // of the stage
  int interrupted_by_ = 0;
  Clock::time_point interrupted_at_;
  std::vector<int> failures_;  // ranks that failed by themselves, in the order seen
};

std::string random_run_id() {
  std::random_device random;
  std::ostringstream id;
  id << std::hex << random() << random();
  return id.str();
}

Ranks start_ranks(int world_size, const std::vector<std::string>& argv, int port, const sigset_t& signal_mask) {
  const std::string size = std::to_string(world_size);
  const std::string run_id = random_run_id();
  Ranks ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    const std::vector<std::pair<std::string, std::string>> variables = {
        {"RANK", std::to_string(rank)},
        {"LOCAL_RANK", std::to_string(rank)},
        {"WORLD_SIZE", size},
        {"LOCAL_WORLD_SIZE", size},
        {"MASTER_ADDR", "127.0.0.1"},
        {"MASTER_PORT", std::to_string(port)},
        {"TORCHELASTIC_USE_AGENT_STORE", "True"},
        {"TORCHELASTIC_RESTART_COUNT", "0"},
        {"TORCHELASTIC_RUN_ID", run_id},
    };
    const auto output = rank == 0 ? ChildProcess::Output::kInherited : ChildProcess::Output::kKept;
    ranks.push_back(std::make_unique<ChildProcess>(argv, variables, output, signal_mask));
  }
  return ranks;
}

}  // namespace

int run_local_ranks(int world_size, const std::vector<std::string>& argv) {
  TORCH_CHECK_VALUE(world_size > 0, "cannot start ", world_size, " ranks: give at least 1");
  // The number of a closed standard stream must not go to one of the descriptors below.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDWR);
  }
  SignalQueue signals;
  // Listening before the ranks exist, they need not wait; the server's threads must start after the last fork.
  const ListeningSocket listening = listen_on_loopback();
  const Ranks ranks = start_ranks(world_size, argv, listening.port, signals.previous_mask());
  const c10::intrusive_ptr<c10d::Store> store = serve_store(listening, kStoreTimeout);
  return Supervisor(ranks, signals).run();
}

}  // namespace optp

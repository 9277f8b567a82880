#include "src/launch/guarded_ranks.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "src/launch/process_tree.h"
#include "src/launch/spawn.h"

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kLeftoverTime = std::chrono::seconds(5);

// The guard's whole life. It was forked from a process that may have threads, so it keeps to system calls where it can.
class Guard {
 public:
  Guard(int socket, std::vector<SpawnPlan>& plans) : socket_(socket), plans_(plans) {}

  [[noreturn]] void run() {
    adopt_orphans();
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);  // what the terminal sends to everyone is for the ranks
    sigset_t child_ended;
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    signals_ = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
    start_ranks();
    while (reap()) {
      pollfd fds[] = {{signals_, POLLIN, 0}, {launcher_lives_ ? socket_ : -1, POLLIN, 0}};
      poll(fds, 2, poll_milliseconds());
      signalfd_siginfo ignored;
      while (read(signals_, &ignored, sizeof(ignored)) > 0) {
      }
      if (fds[1].revents != 0) obey();
      if (Clock::now() >= deadline_) leftover_signal_ = SIGKILL;
    }
    _exit(0);
  }

 private:
  void start_ranks() {
    for (size_t rank = 0; rank < plans_.size(); ++rank) {
      pids_.push_back(spawn(plans_[rank]));
      if (pids_.back() < 0) {
        dprintf(plans_[rank].err, "optp: cannot start another process: %s\n", strerrordesc_np(errno));
        report(rank, 127 << 8);
      }
    }
    // Whoever reads the ranks' output sees its end when they have ended.
    for (const SpawnPlan& plan : plans_) {
      close(plan.out);
      close(plan.err);
    }
  }

  // Collects what has ended and signals what the ranks have left behind; false when nothing is left.
  bool reap() {
    int status = 0;
    bool changed = false;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      changed = true;
      const auto rank = std::find(pids_.begin(), pids_.end(), pid);
      if (rank == pids_.end()) continue;
      *rank = -1;
      report(static_cast<size_t>(rank - pids_.begin()), status);
    }
    if (pid < 0) return false;  // no children
    const bool ranks_run = std::any_of(pids_.begin(), pids_.end(), [](pid_t rank) { return rank > 0; });
    if (ranks_run && leftover_signal_ != SIGKILL) return true;
    if (deadline_ == Clock::time_point::max()) {
      deadline_ = Clock::now() + kLeftoverTime;
      changed = true;
    }
    // With SIGKILL always: a process can start others until it is gone.
    if (changed || leftover_signal_ == SIGKILL) return signal_children(leftover_signal_) > 0;
    return true;
  }

  void report(size_t rank, int status) {
    const GuardedRanks::End end{static_cast<int>(rank), status};
    if (launcher_lives_) ::send(socket_, &end, sizeof(end), MSG_NOSIGNAL);
  }

  void obey() {
    int signal = 0;
    if (recv(socket_, &signal, sizeof(signal), MSG_DONTWAIT) != sizeof(signal)) {
      launcher_lives_ = false;
      leftover_signal_ = SIGKILL;
    } else if (signal == SIGKILL) {
      leftover_signal_ = SIGKILL;
    } else {
      for (const pid_t pid : pids_) {
        if (pid <= 0) continue;
        // A request to stop that did not come from a terminal, which would have sent it to all.
        if (signal == SIGINT) {
          signal_tree(pid, signal);
        } else {
          kill(pid, signal);
        }
      }
    }
  }

  int poll_milliseconds() const {
    if (leftover_signal_ == SIGKILL) return 50;
    if (deadline_ == Clock::time_point::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
    return static_cast<int>(std::max<int64_t>(left.count(), 0));
  }

  int socket_;
  std::vector<SpawnPlan>& plans_;
  int signals_ = -1;
  std::vector<pid_t> pids_;  // -1: has ended
  bool launcher_lives_ = true;
  int leftover_signal_ = SIGTERM;
  Clock::time_point deadline_ = Clock::time_point::max();  // for what the ranks have left behind
};

int checked(int result, const char* what) {
  TORCH_CHECK(result >= 0, "cannot make ", what, " for the ranks: ", std::strerror(errno));
  return result;
}

}  // namespace

GuardedRanks::GuardedRanks(const std::string& program, const std::vector<std::string>& argv,
                           const std::vector<std::vector<std::string>>& environments, const sigset_t& signal_mask) {
  int sockets[2];
  checked(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), "a socket");
  const int nothing = checked(open("/dev/null", O_RDONLY | O_CLOEXEC), "an input");
  std::vector<SpawnPlan> plans;
  for (const std::vector<std::string>& environment : environments) {
    int out[2], err[2];
    checked(pipe2(out, O_CLOEXEC), "a pipe");
    checked(pipe2(err, O_CLOEXEC), "a pipe");
    for (const int fd : {out[0], err[0]}) fcntl(fd, F_SETFL, O_NONBLOCK);
    outputs_.push_back(out[0]);
    errors_.push_back(err[0]);
    plans.push_back({.program = program,
                     .argv = argv,
                     .environment = environment,
                     .in = plans.empty() ? -1 : nothing,
                     .out = out[1],
                     .err = err[1],
                     .signal_mask = signal_mask});
  }
  guard_ = checked(fork(), "a process");
  if (guard_ == 0) {
    close(sockets[0]);
    Guard(sockets[1], plans).run();
  }
  socket_ = sockets[0];
  close(sockets[1]);
  close(nothing);
  for (const SpawnPlan& plan : plans) {
    close(plan.out);
    close(plan.err);
  }
}

GuardedRanks::~GuardedRanks() {
  if (gone()) return;
  close(socket_);  // the guard takes it for this process's death
  while (waitpid(guard_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<GuardedRanks::End> GuardedRanks::next_end() {
  if (gone()) return std::nullopt;
  End end;
  const ssize_t count = recv(socket_, &end, sizeof(end), MSG_DONTWAIT);
  if (count == sizeof(end)) return end;
  if (count == 0) {
    close(socket_);
    socket_ = -1;
    while (waitpid(guard_, &guard_status_, 0) < 0 && errno == EINTR) {
    }
  }
  return std::nullopt;
}

void GuardedRanks::send(int signal) {
  if (!gone()) ::send(socket_, &signal, sizeof(signal), MSG_NOSIGNAL);
}

}  // namespace optp

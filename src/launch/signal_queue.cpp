#include "src/launch/signal_queue.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace optp {

SignalQueue::SignalQueue(const std::vector<int>& signals) {
  // A parent can leave SIGCHLD ignored, and then no status of a child can be read.
  std::signal(SIGCHLD, SIG_DFL);
  sigset_t queued;
  sigemptyset(&queued);
  sigaddset(&queued, SIGCHLD);
  for (const int signal : signals) {
    struct sigaction action{};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&queued, signal);
  }
  sigprocmask(SIG_BLOCK, &queued, &previous_mask_);
  fd_ = signalfd(-1, &queued, SFD_CLOEXEC | SFD_NONBLOCK);
  TORCH_CHECK(fd_ >= 0, "cannot wait for signals: ", std::strerror(errno));
}

SignalQueue::~SignalQueue() {
  // A signal that came twice must not end the process now that the answer to the first is known.
  signalfd_siginfo ignored;
  while (next(ignored)) {
  }
  close(fd_);
  sigprocmask(SIG_SETMASK, &previous_mask_, nullptr);
}

bool SignalQueue::next(signalfd_siginfo& info) { return read(fd_, &info, sizeof(info)) == sizeof(info); }

}  // namespace optp

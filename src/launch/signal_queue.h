// Signals as something to read, for a loop that also waits for other things.
#pragma once

#include <sys/signalfd.h>

#include <csignal>
#include <vector>

namespace optp {

/// Keeps SIGCHLD and the signals it is given from their usual effect while it lives, and queues them. A signal that
/// this process was started to ignore (as a shell does with SIGINT for background jobs) stays ignored. Construct it
/// before other threads start, so that they block the signals too.
class SignalQueue {
 public:
  /// Throws c10::Error if the system has no descriptor left.
  explicit SignalQueue(const std::vector<int>& signals);
  /// Drops what is still queued.
  ~SignalQueue();
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;

  /// Readable when next has something to give.
  int fd() const { return fd_; }
  /// The mask that processes started now should have.
  const sigset_t& previous_mask() const { return previous_mask_; }
  /// The next signal, without waiting; false if there is none.
  bool next(signalfd_siginfo& info);

 private:
  int fd_ = -1;
  sigset_t previous_mask_;
};

}  // namespace optp

// One child process that runs this very program again.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <string>
#include <vector>

#include "src/launch/spawn.h"

namespace optp {

/// A child that never outlives its parent: the kernel kills it when the parent dies, and the destructor when it lives.
class ChildProcess {
 public:
  enum class Output {
    kInherited,  // standard input, output and error are the parent's
    kKept,       // no input; output and error go to output(), which holds their last 64 KiB
  };

  /// Starts /proc/self/exe with `argv`, this process's environment changed by `variables` (name, value), and
  /// `signal_mask`. Throws c10::Error if there can be no more processes. Call it from the thread that lives longest
  /// and before others exist.
  ChildProcess(const std::vector<std::string>& argv, const Variables& variables, Output output,
               const sigset_t& signal_mask);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  bool running() const { return running_; }
  /// As waitpid gives it, once the child has ended.
  int wait_status() const { return wait_status_; }
  /// Collects the child if it has ended since the last call; true if so. Does not wait.
  bool reap();
  /// Sends a signal if the child runs.
  void send(int signal);

  /// Readable when read_output has something to do; -1 when nothing can come any more.
  int output_fd() const { return output_fd_; }
  /// Returns what it has read.
  std::string read_output();
  const std::string& output() const { return output_; }

 private:
  pid_t pid_ = -1;
  int output_fd_ = -1;
  bool running_ = true;
  int wait_status_ = 0;
  std::string output_;
};

}  // namespace optp

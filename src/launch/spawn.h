// Starts another program so that it cannot outlive this one.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <string>
#include <utility>
#include <vector>

namespace optp {

struct SpawnPlan {
  std::string program;                   // path of the file
  std::vector<std::string> argv;         // argv[0] included
  std::vector<std::string> environment;  // "NAME=value"
  int in = -1, out = -1, err = -1;       // descriptors for the standard streams; -1: this process's own
  sigset_t signal_mask;
};

using Variables = std::vector<std::pair<std::string, std::string>>;  // name, value

/// This process's environment, in which `variables` replace or add to what is there.
std::vector<std::string> changed_environment(const Variables& variables);

/// Gives the standard streams that this process was started without to /dev/null, so that no other descriptor gets
/// their numbers. Call it before anything else opens files.
void open_closed_streams();

/// Starts a child that has the standard streams and no other descriptor. The kernel kills it when the calling thread
/// ends. If the program cannot be run the child says so on its standard error and exits with 127, as shells do. Returns
/// the process id, or -1 with errno set if there can be no more processes. May be called in a process that was forked
/// from one with threads.
pid_t spawn(const SpawnPlan& plan);

}  // namespace optp

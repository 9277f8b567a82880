// This host and its processes.
#pragma once

#include <sys/types.h>

#include <string>

namespace optp {

/// This host's name.
std::string host_name();

/// What processes that can look at each other through /proc share: a running kernel, a numbering of processes, a user.
std::string host_identity();

/// Whether `process`, of this host, has ended; a zombie has.
bool process_has_ended(pid_t process);

}  // namespace optp

// Processes below this one, grandchildren included.
#pragma once

#include <sys/types.h>

namespace optp {

/// Makes this process the parent of those whose parents end below it, so that none of them gets lost.
void adopt_orphans();

/// Sends `signal` to every child of the calling thread, adopted ones included; returns how many it reached. Allocates
/// nothing.
int signal_children(int signal);

/// Sends `signal` to the process `root` and to all below it, as a terminal does with Ctrl-C: a shell that waits for the
/// program that it runs does not pass the signal on. Allocates nothing.
void signal_tree(pid_t root, int signal);

/// Kills what is left below this process and waits until it has ended. Leaves out what belongs to other users, which
/// cannot be signalled.
void kill_children();

}  // namespace optp

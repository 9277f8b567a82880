// Processes below this one, grandchildren included.
#pragma once

namespace optp {

/// Makes this process the parent of those whose parents end below it, so that none of them gets lost.
void adopt_orphans();

/// Sends `signal` to every child of the calling thread, adopted ones included; returns how many it reached. Allocates
/// nothing.
int signal_children(int signal);

/// Kills what is left below this process and waits until it has ended. Leaves out what belongs to other users, which
/// cannot be signalled.
void kill_children();

}  // namespace optp

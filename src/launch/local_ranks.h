// Runs a command on several ranks of this host without a launcher: `optp verify --tp 2` on its own.
#pragma once

#include <string>
#include <vector>

namespace optp {

/// Starts `world_size` ranks of this very program with the arguments `argv` (argv[0] included), each with torchrun's
/// environment variables, serves their store on a loopback port, and waits until all have ended. Call it before
/// anything starts threads. The ranks find themselves with read_launch_env.
///
/// Rank 0 has this process's standard streams. The other ranks have no input, and what they print is shown on standard
/// error, marked with the rank, only if one of them is the cause of a failure and rank 0 has not failed in the same
/// way.
///
/// A rank fails by ending with a signal or a status other than 0. The others may then still end by themselves for 3 s
/// (longer after status 1, with which a rank that did its work reports a failed check); after that they get SIGTERM and
/// 5 s later SIGKILL. The cause is the first rank to fail, but a status 3 (another rank could not be reached) gives way
/// to a failure that explains it.
///
/// SIGINT and SIGTERM are passed on to the ranks, unless the terminal has sent them to all anyway; a repetition more
/// than 1 s later kills the ranks. SIGUSR1 is passed on as well, and the answers of all ranks are shown.
///
/// Returns the exit status for main: 0 if all ranks ended with 0; the status of the cause if that is 1 or 2; 3 for
/// everything else that can happen to a rank; 130 or 143 after SIGINT or SIGTERM. When it returns, no rank is left.
/// Throws c10::Error if the ranks cannot be started.
int run_local_ranks(int world_size, const std::vector<std::string>& argv);

}  // namespace optp

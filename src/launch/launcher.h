// `optp launch`: starts the ranks of any program on this host, together with the launchers of other hosts.
#pragma once

#include "src/launch/launch_options.h"

namespace optp {

/// Starts the ranks, prints what they print, a tag with the rank in front of every line, and returns when all have
/// ended and nothing that they started is left: 0 if all ended with 0 on all hosts; otherwise the status of the rank
/// that failed first (128 + n if signal n killed it), which the last words on standard error name; 3 if a host was lost
/// or the launchers could not meet, 128 + n after the stop signal n. Whatever happens to this process, its ranks and
/// their descendants die with it.
///
/// When a rank fails, the others are ended as Supervisor says, on all hosts, and all ranks start again, at most
/// `max_restarts` times. SIGINT, SIGTERM and SIGHUP stop the run on all hosts; SIGUSR1 and SIGUSR2 are passed on to the
/// ranks of this host.
///
/// Throws c10::ValueError if the options contradict each other or the program cannot be run, c10::Error if something
/// that is needed cannot be had. Call it from the main thread, before anything starts threads.
int launch(const LaunchOptions& options);

}  // namespace optp

#include "src/launch/local_ranks.h"

#include <c10/util/Exception.h>
#include <poll.h>
#include <sys/wait.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>

#include "parallel/rendezvous.h"
#include "src/launch/child_process.h"
#include "src/launch/rank_environment.h"
#include "src/launch/signal_queue.h"
#include "src/launch/supervisor.h"

namespace optp {
namespace {

using Ranks = std::vector<std::unique_ptr<ChildProcess>>;

constexpr auto kStoreTimeout = std::chrono::seconds(30);

void wait_for_events(const Ranks& ranks, const SignalQueue& signals, int milliseconds) {
  std::vector<pollfd> fds = {{signals.fd(), POLLIN, 0}};
  for (const auto& rank : ranks) {
    if (rank->running()) fds.push_back({rank->output_fd(), POLLIN, 0});  // poll ignores -1
  }
  poll(fds.data(), fds.size(), milliseconds);
}

void supervise(const Ranks& ranks, SignalQueue& signals, Supervisor& supervisor) {
  while (supervisor.running()) {
    wait_for_events(ranks, signals, supervisor.poll_milliseconds());
    signalfd_siginfo info;
    while (signals.next(info)) {
      // From the kernel means from the terminal.
      if (info.ssi_signo != SIGCHLD) {
        supervisor.on_stop_signal(static_cast<int>(info.ssi_signo), info.ssi_code == SI_KERNEL);
      }
    }
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      ranks[rank]->read_output();
      if (ranks[rank]->reap()) supervisor.on_end(static_cast<int>(rank), ranks[rank]->wait_status());
    }
    supervisor.escalate_if_due();
  }
}

void show_output(const Ranks& ranks, int rank) {
  std::istringstream lines(ranks[static_cast<size_t>(rank)]->output());
  for (std::string line; std::getline(lines, line);) std::cerr << "[rank " << rank << "] " << line << '\n';
}

int conclude(const Ranks& ranks, const Supervisor& supervisor) {
  if (supervisor.stopped_by() != 0) return 128 + supervisor.stopped_by();
  const std::optional<int> cause = supervisor.cause();
  if (!cause) return 0;
  const int status = supervisor.wait_status(*cause);
  const std::vector<int>& failures = supervisor.failures();
  const bool rank_0_said_it = std::any_of(
      failures.begin(), failures.end(), [&](int rank) { return rank == 0 && supervisor.wait_status(rank) == status; });
  if (!rank_0_said_it) show_output(ranks, *cause);
  if (exited_with(status, kCheckFailed) || exited_with(status, kBadInput)) return WEXITSTATUS(status);
  std::cerr << "optp: rank " << *cause << " " << describe_end(status) << '\n';
  return kRankFailed;
}

Ranks start_ranks(int world_size, const std::vector<std::string>& argv, int port, const sigset_t& signal_mask) {
  const RankPlace place{
      .world_size = world_size, .local_world_size = world_size, .master_port = port, .run_id = random_run_id()};
  Ranks ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    const auto output = rank == 0 ? ChildProcess::Output::kInherited : ChildProcess::Output::kKept;
    ranks.push_back(std::make_unique<ChildProcess>(argv, rank_variables(place, rank), output, signal_mask));
  }
  return ranks;
}

}  // namespace

int run_local_ranks(int world_size, const std::vector<std::string>& argv) {
  TORCH_CHECK_VALUE(world_size > 0, "cannot start ", world_size, " ranks: give at least 1");
  open_closed_streams();
  SignalQueue signals({SIGINT, SIGTERM});
  // Listening before the ranks exist, they need not wait; the server's threads must start after the last fork.
  const ListeningSocket listening = listen_on_loopback();
  const Ranks ranks = start_ranks(world_size, argv, listening.port, signals.previous_mask());
  const c10::intrusive_ptr<c10d::Store> store = serve_store(listening, kStoreTimeout);
  Supervisor supervisor(world_size, Supervisor::Status1::kReport, [&](int signal) {
    for (const auto& rank : ranks) rank->send(signal);
  });
  supervise(ranks, signals, supervisor);
  return conclude(ranks, supervisor);
}

}  // namespace optp

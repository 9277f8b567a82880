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

using Clock = std::chrono::steady_clock;

constexpr auto kStoreTimeout = std::chrono::seconds(30);
constexpr auto kAnswerTime = std::chrono::seconds(5);  // how long answers to SIGUSR1 are shown

void wait_for_events(const Ranks& ranks, const SignalQueue& signals, int milliseconds) {
  std::vector<pollfd> fds = {{signals.fd(), POLLIN, 0}};
  for (const auto& rank : ranks) {
    if (rank->running()) fds.push_back({rank->output_fd(), POLLIN, 0});  // poll ignores -1
  }
  poll(fds.data(), fds.size(), milliseconds);
}

void supervise(const Ranks& ranks, SignalQueue& signals, Supervisor& supervisor) {
  Clock::time_point answers_until;
  while (supervisor.running()) {
    wait_for_events(ranks, signals, supervisor.poll_milliseconds());
    signalfd_siginfo info;
    while (signals.next(info)) {
      if (info.ssi_signo == SIGUSR1) {
        for (const auto& rank : ranks) rank->send(SIGUSR1);
        answers_until = Clock::now() + kAnswerTime;
      } else if (info.ssi_signo != SIGCHLD) {
        // From the kernel means from the terminal.
        supervisor.on_stop_signal(static_cast<int>(info.ssi_signo), info.ssi_code == SI_KERNEL);
      }
    }
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      const std::string read = ranks[rank]->read_output();
      // Other ranks than 0 are asked to speak only so.
      if (Clock::now() < answers_until) std::cerr << read << std::flush;
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

Ranks start_ranks(const RankPlace& place, const std::vector<std::string>& argv, const sigset_t& signal_mask) {
  Ranks ranks;
  for (int rank = 0; rank < place.world_size; ++rank) {
    const auto output = rank == 0 ? ChildProcess::Output::kInherited : ChildProcess::Output::kKept;
    ranks.push_back(std::make_unique<ChildProcess>(argv, rank_variables(place, rank), output, signal_mask));
  }
  return ranks;
}

}  // namespace

int run_local_ranks(int world_size, const std::vector<std::string>& argv) {
  TORCH_CHECK_VALUE(world_size > 0, "cannot start ", world_size, " ranks: give at least 1");
  open_closed_streams();
  SignalQueue signals({SIGINT, SIGTERM, SIGUSR1});
  // Listening before the ranks exist, they need not wait; the server's threads must start after the last fork.
  const ListeningSocket listening = listen_on_loopback();
  const RankPlace place{.world_size = world_size,
                        .local_world_size = world_size,
                        .master_port = listening.port,
                        .run_id = random_run_id(),
                        .run_token = random_run_token()};
  // Until a rank can answer SIGUSR1, it waits.
  sigset_t mask = signals.previous_mask();
  sigaddset(&mask, SIGUSR1);
  const Ranks ranks = start_ranks(place, argv, mask);
  const c10::intrusive_ptr<c10d::Store> store = serve_store(listening, kStoreTimeout);
  claim_store(*store, place.run_token);
  Supervisor supervisor(world_size, Supervisor::Status1::kReport, [&](int signal) {
    for (const auto& rank : ranks) rank->send(signal);
  });
  supervise(ranks, signals, supervisor);
  return conclude(ranks, supervisor);
}

}  // namespace optp

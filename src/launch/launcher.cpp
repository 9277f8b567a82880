#include "src/launch/launcher.h"

#include <c10/util/StringUtil.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <numeric>
#include <utility>

#include "src/launch/find_program.h"
#include "src/launch/line_printer.h"
#include "src/launch/node_link.h"
#include "src/launch/process_tree.h"
#include "src/launch/rank_environment.h"
#include "src/launch/rank_output.h"
#include "src/launch/rank_run.h"
#include "src/launch/signal_queue.h"

namespace optp {
namespace {

// Sooner or later the loop looks at everything: a lost contact makes no event.
constexpr int kLookMilliseconds = 1000;

const std::vector<int> kPassedSignals = {SIGUSR1, SIGUSR2};

std::vector<int> all_signals() {
  std::vector<int> all = kStopSignals;
  all.insert(all.end(), kPassedSignals.begin(), kPassedSignals.end());
  return all;
}

bool contains(const std::vector<int>& signals, int signal) {
  return std::find(signals.begin(), signals.end(), signal) != signals.end();
}

// The outcome that explains the others: the first failure, unless that says no more than that another rank was lost.
const NodeOutcome* find_cause(const std::vector<NodeOutcome>& outcomes, std::optional<int> first_failure) {
  const auto failed = [](const NodeOutcome& outcome) { return outcome.status != 0; };
  const auto explains = [&](const NodeOutcome& outcome) { return failed(outcome) && outcome.explains; };
  const auto any = std::find_if(outcomes.begin(), outcomes.end(), failed);
  if (any == outcomes.end()) return nullptr;
  const NodeOutcome& first = first_failure ? outcomes[static_cast<size_t>(*first_failure)] : *any;
  if (explains(first)) return &first;
  const auto better = std::find_if(outcomes.begin(), outcomes.end(), explains);
  return better != outcomes.end() ? &*better : failed(first) ? &first : &*any;
}

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options)
      : options_(options), program_(find_program(options.program.front())), signals_(all_signals()), link_(options) {
    adopt_orphans();
  }

  int run() {
    wait_until([&] { return view_.world.has_value(); });
    int attempt = 0;
    while (!over() && run_attempt(attempt)) ++attempt;
    const int status = conclude();
    print_rest();
    return status;
  }

 private:
  bool over() const { return stopped_by_ != 0 || !view_.lost.empty(); }

  // One attempt on all hosts; true if another is due.
  bool run_attempt(int attempt) {
    link_.begin_attempt(attempt);
    view_ = link_.view();
    wait_until([&] { return view_.started_attempt >= attempt; });
    if (over()) {
      link_.report_outcome({});
      return false;
    }
    run_ranks(attempt);
    // Also after a stop: the ranks of other hosts need the store until they have ended.
    while (view_.outcomes.empty() && view_.lost.empty() && !impatient_) wait_for_events();
    if (over()) return false;
    const NodeOutcome* cause = find_cause(view_.outcomes, view_.first_failure);
    if (cause == nullptr) return false;
    cause_ = *cause;
    const int restarts = view_.world->max_restarts;
    if (attempt >= restarts) return false;
    say(c10::str(cause_.sentence, "; starting all ranks again, restart ", attempt + 1, " of ", restarts));
    cause_ = {};
    return true;
  }

  void run_ranks(int attempt) {
    const LaunchWorld& world = *view_.world;
    const auto begin = world.ranks.begin();
    const RankPlace place{.first_rank = std::accumulate(begin, begin + world.node_rank, 0),
                          .world_size = std::accumulate(begin, world.ranks.end(), 0),
                          .local_world_size = options_.ranks,
                          .node_rank = world.node_rank,
                          .nodes = options_.nodes,
                          .master_addr = options_.master_addr,
                          .master_port = link_.port(),
                          .restart_count = attempt,
                          .max_restarts = world.max_restarts,
                          .run_id = world.run_id,
                          .run_token = world.run_token};
    RankRun ranks(program_, options_, place, signals_.previous_mask(), printer_);
    ranks_ = &ranks;
    bool failure_reported = false;
    while (!ranks.over()) {
      wait_for_events();
      ranks.advance();
      if (ranks.failed() && !std::exchange(failure_reported, true)) link_.report_failure();
      if (view_.first_failure || !view_.lost.empty()) ranks.end_others();
    }
    ranks_ = nullptr;
    link_.report_outcome(ranks.outcome(world.hosts[static_cast<size_t>(world.node_rank)]));
  }

  template <typename Condition>
  void wait_until(const Condition& condition) {
    while (!over() && !condition()) wait_for_events();
  }

  void wait_for_events() {
    std::vector<pollfd> fds = {{signals_.fd(), POLLIN, 0}, {link_.event_fd(), POLLIN, 0}};
    if (printer_.waiting_for() >= 0) fds.push_back({printer_.waiting_for(), POLLOUT, 0});
    int milliseconds = kLookMilliseconds;
    if (ranks_ != nullptr) ranks_->add_poll(fds, milliseconds);
    poll(fds.data(), fds.size(), milliseconds);
    printer_.write_some();
    view_ = link_.view();
    take_signals();
    if (view_.stop && stopped_by_ == 0) stop(view_.stop->signal, false);
  }

  void take_signals() {
    signalfd_siginfo info;
    while (signals_.next(info)) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (contains(kStopSignals, signal)) {
        link_.report_stop(signal);
        stop(signal, info.ssi_code == SI_KERNEL);  // from the kernel means from the terminal
      } else if (contains(kPassedSignals, signal) && ranks_ != nullptr) {
        ranks_->send(signal);
      }
    }
  }

  void stop(int signal, bool from_terminal) {
    if (ranks_ != nullptr) {
      ranks_->stop(signal, from_terminal);
    } else if (stopped_by_ != 0) {
      impatient_ = true;
    }
    if (stopped_by_ == 0) stopped_by_ = signal;
  }

  // The last words, and the exit status.
  int conclude() {
    if (stopped_by_ != 0) {
      const bool elsewhere = view_.stop && view_.world && view_.stop->node != view_.world->node_rank;
      say(c10::str("stopped by SIG", sigabbrev_np(stopped_by_),
                   elsewhere ? c10::str(" to the launcher of node ", view_.stop->node) : ""));
      return 128 + stopped_by_;
    }
    if (!view_.lost.empty()) {
      say(view_.lost);
      return view_.lost_status;
    }
    if (cause_.status == 0) return 0;
    say(cause_.sentence + (cause_.last_lines.empty() ? "" : "; the last lines of its standard error:"));
    for (const std::string& line : cause_.last_lines) printer_.print(STDERR_FILENO, "  " + line + "\n");
    return cause_.status;
  }

  void say(const std::string& sentence) { printer_.print(STDERR_FILENO, "optp: " + sentence + "\n"); }

  // Whoever reads the output may be slow, but an impatient user ends that.
  void print_rest() {
    while (printer_.waiting_for() >= 0) {
      pollfd fds[] = {{printer_.waiting_for(), POLLOUT, 0}, {signals_.fd(), POLLIN, 0}};
      poll(fds, 2, -1);
      printer_.write_some();
      signalfd_siginfo info;
      while (signals_.next(info)) {
        if (contains(kStopSignals, static_cast<int>(info.ssi_signo))) return;
      }
    }
  }

  const LaunchOptions& options_;
  std::string program_;
  SignalQueue signals_;  // before the link's threads, which must not take signals
  NodeLink link_;
  NodeLink::View view_;
  LinePrinter printer_;
  RankRun* ranks_ = nullptr;  // while they run
  int stopped_by_ = 0;
  bool impatient_ = false;  // asked to stop again after the ranks had ended
  NodeOutcome cause_;       // of the last attempt's failure
};

}  // namespace

int launch(const LaunchOptions& options) {
  open_closed_streams();
  if (!options.log_dir.empty()) make_log_folder(options.log_dir);  // before other hosts wait for this one
  return Launcher(options).run();
}

}  // namespace optp

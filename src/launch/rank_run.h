// One attempt of this host's ranks: their processes, their output, and what to do when one fails.
#pragma once

#include <poll.h>

#include <memory>
#include <string>
#include <vector>

#include "src/launch/guarded_ranks.h"
#include "src/launch/launch_options.h"
#include "src/launch/line_printer.h"
#include "src/launch/node_store.h"
#include "src/launch/rank_environment.h"
#include "src/launch/rank_output.h"
#include "src/launch/supervisor.h"

namespace optp {

class RankRun {
 public:
  /// Starts the ranks with `program`, the path of options.program[0]. Throws as GuardedRanks and RankOutput do.
  RankRun(const std::string& program, const LaunchOptions& options, const RankPlace& place, const sigset_t& signal_mask,
          LinePrinter& printer);

  /// Adds what poll should wait for, and lowers its time limit.
  void add_poll(std::vector<pollfd>& fds, int& milliseconds) const;
  /// Does what there is to do, without waiting.
  void advance();
  /// All ranks and their descendants have ended, and all that they printed has been read.
  bool over() const { return over_; }

  /// Passes a stop signal on, see Supervisor.
  void stop(int signal, bool from_terminal) { supervisor_.on_stop_signal(signal, from_terminal); }
  void send(int signal) { ranks_.send(signal); }
  /// The run has failed on another host.
  void end_others() { supervisor_.end_others(); }

  /// A rank has failed.
  bool failed() const { return guard_lost_ || !supervisor_.failures().empty(); }
  /// Once it is over. `host` is this host's name.
  NodeOutcome outcome(const std::string& host) const;

 private:
  bool reads_on() const;

  GuardedRanks ranks_;
  Supervisor supervisor_;
  const RankPlace place_;
  const LinePrinter& printer_;
  std::vector<std::unique_ptr<RankOutput>> outputs_, errors_;  // of each rank
  bool guard_lost_ = false;
  bool over_ = false;
};

}  // namespace optp

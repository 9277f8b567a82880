// What the launchers of one run tell each other, as keys of the store that node 0's launcher serves to all ranks.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "src/launch/launch_options.h"

namespace c10d {
class Store;
}

namespace optp {

/// The run as all launchers know it once they have met.
struct LaunchWorld {
  int node_rank = 0;
  std::vector<std::string> hosts;  // of each node
  std::vector<int> ranks;          // on each node
  std::string run_id;
  std::string run_token;  // random
  int max_restarts = 0;
};

/// How one node's part of an attempt ended.
struct NodeOutcome {
  int status = 0;        // exit status of the rank that failed first on this node; 0: none failed by itself
  bool explains = true;  // false: that rank says that another could not be reached, so its failure has a cause
  std::string sentence;  // which rank, where, and how it ended
  std::vector<std::string> last_lines;  // of its standard error
};

/// What stops a run on all nodes when one launcher gets it.
inline const std::vector<int> kStopSignals = {SIGINT, SIGTERM, SIGHUP};

struct StopRequest {
  int signal = 0;
  int node = 0;
};

/// Every call talks to the store and can take as long as the network does. Calls throw c10::Error when the store cannot
/// be used; meet also throws c10::ValueError where the launchers were started with options that contradict each other.
class NodeStore {
 public:
  using Clock = std::chrono::steady_clock;

  /// `serves`: this process serves the store, and is node 0.
  NodeStore(c10::intrusive_ptr<c10d::Store> store, const LaunchOptions& options, bool serves);
  ~NodeStore();

  /// Waits until all launchers have come, each with a place of its own.
  LaunchWorld meet(Clock::time_point deadline);

  /// Says that this launcher lives. Node 0 also looks at the others: returns a sentence when one has been silent for
  /// kNodeTimeout, or when node 0 says so.
  std::string beat();

  /// Node 0 starts an attempt for all, with no keys of an earlier one's ranks left; the others see it started. Call it
  /// until it returns true.
  bool start_attempt(int attempt);
  void report_failure(int attempt);
  /// The node on which a rank failed first.
  std::optional<int> first_failure(int attempt);
  /// Call it when no process of this node's ranks is left.
  void report_outcome(int attempt, const NodeOutcome& outcome);
  /// Of all nodes, once all have reported; empty before.
  std::vector<NodeOutcome> outcomes(int attempt);
  void report_stop(int signal);
  std::optional<StopRequest> stop_request();

  /// The last call. Node 0 waits a moment for the others to have seen everything.
  void leave();

 private:
  LaunchWorld meet_others(Clock::time_point deadline);
  LaunchWorld join(Clock::time_point deadline);
  void take_place(int node_rank);
  std::optional<std::string> find(const std::string& key);
  std::string wait_for(const std::string& key, Clock::time_point deadline, const std::string& what);
  std::string place() const;
  std::string node_name(int node) const;

  struct Heart {
    int64_t beats = 0;
    Clock::time_point heard;
  };

  c10::intrusive_ptr<c10d::Store> store_;
  LaunchOptions options_;
  bool serves_;
  LaunchWorld world_;
  std::vector<Heart> hearts_;
  Clock::time_point last_beat_;
};

/// How long a launcher may be silent before its node counts as lost.
constexpr auto kNodeTimeout = std::chrono::seconds(10);

}  // namespace optp

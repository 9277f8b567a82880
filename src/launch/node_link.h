// One launcher's connection to the launchers of the other hosts, for a loop that must never wait for the network.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/launch/launch_options.h"
#include "src/launch/node_store.h"

namespace optp {

/// A thread that talks to the store and keeps what it has learnt at hand. One host is a world of one node, with nothing
/// else about it.
class NodeLink {
 public:
  /// What is known at the moment.
  struct View {
    std::optional<LaunchWorld> world;   // once all launchers have met
    int started_attempt = -1;           // the newest
    std::optional<int> first_failure;   // node where a rank failed first in the attempt that was begun last
    std::vector<NodeOutcome> outcomes;  // of that attempt, once all nodes have reported
    std::optional<StopRequest> stop;    // someone has stopped the run
    std::string lost;                   // not empty: why the launchers cannot go on together; final
    int lost_status = 0;                // the exit status for that
  };

  /// Listens if this is node 0, and begins to meet the others. Throws c10::DistBackendError if it cannot listen.
  /// Signals that must not be delivered to its threads must be blocked already.
  explicit NodeLink(const LaunchOptions& options);
  /// Takes leave of the others; waits a few seconds at most.
  ~NodeLink();
  NodeLink(const NodeLink&) = delete;
  NodeLink& operator=(const NodeLink&) = delete;

  /// The store's port.
  int port() const { return port_; }

  /// Readable when view() may have changed.
  int event_fd() const;
  /// A lost contact shows here with no event, so look once a second.
  View view();

  /// Asks for the start of an attempt, counted from 0; all nodes must ask.
  void begin_attempt(int attempt);
  /// A rank of this node has failed in that attempt.
  void report_failure();
  /// No process of this node's ranks is left.
  void report_outcome(const NodeOutcome& outcome);
  /// Someone stops the run here.
  void report_stop(int signal);

 private:
  struct State;

  std::shared_ptr<State> state_;  // shared with the thread, which is left behind if the network holds it
  int port_ = 0;
};

}  // namespace optp

// World rank -> (data, tensor) coordinates, and the process group of each axis.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <memory>
#include <string>

#include "parallel/process_group.h"
#include "parallel/rank_watch.h"

namespace optp {

/// tp x dp ranks. Tensor-parallel ranks are neighbours: world rank = data rank * tp + tensor rank.
///
/// `tensor()` joins the ranks that share one copy of the model, `data()` the ranks that hold the same shard of
/// different copies, `world()` all of them. Cheap to copy.
class Mesh {
 public:
  /// One rank, nothing to talk to.
  Mesh() = default;

  /// What moves the numbers within a group. `automatic`: shared memory where all ranks of the group can share it, Gloo
  /// otherwise.
  enum class Comm { automatic, gloo, shared_memory };

  struct Options {
    int64_t tp = 1;
    int64_t dp = 1;
    /// Longest wait for another rank, in every collective.
    std::chrono::milliseconds timeout = std::chrono::minutes(5);
    /// IPv4 address that Gloo binds to and tells its peers.
    std::string address = "127.0.0.1";
    Comm comm = Comm::automatic;
    /// ProcessGroup::set_checks_calls, for all groups.
    bool check_collectives = false;
    /// The store is served by this process: it must not end before the others have left the mesh, within seconds.
    bool serves_store = false;
  };

  /// Connects the ranks. Call it on every rank, with the same store and options; returns when all are there. The store
  /// is used as long as a copy of the mesh or of one of its groups lives. Where a group uses Gloo, the process ignores
  /// SIGPIPE from then on, unless it handles it.
  /// Throws c10::ValueError unless tp * dp == world_size, c10::DistBackendError when a rank does not come or ends, or
  /// when `comm` asks for shared memory and a group cannot have it.
  Mesh(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t world_size, const Options& options);

  /// Tensor rank `rank` of `tp`, of one copy, that nobody is connected to: for building a model to see which shards a
  /// rank would hold. Every collective throws.
  static Mesh unconnected(int64_t tp, int64_t rank);

  const ProcessGroup& tensor() const { return tensor_; }
  const ProcessGroup& data() const { return data_; }
  const ProcessGroup& world() const { return world_; }

  /// What this rank does, for the others and for whoever asks.
  RankWatch& watch() const { return *watch_; }

  /// Why a group uses Gloo though `comm` was automatic; empty if none does.
  const std::string& why_not_shared_memory() const { return why_not_shared_memory_; }

  /// Time that this rank has spent in the collectives of all three groups, waits for others included, since they were
  /// made or their counts reset.
  double communication_seconds() const;

 private:
  ProcessGroup tensor_;
  ProcessGroup data_;
  ProcessGroup world_;
  std::shared_ptr<RankWatch> watch_ = std::make_shared<RankWatch>();
  std::string why_not_shared_memory_;
};

}  // namespace optp

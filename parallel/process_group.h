// A value over c10d::Backend: the collectives that tensor parallelism needs, with errors that say where, and counts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "parallel/shard.h"

namespace optp {

class RankWatch;

/// A collective that is about to run, as a CollectiveHook sees it.
struct Collective {
  std::string_view operation;  ///< "all_reduce", "all_gather", "reduce_scatter", "broadcast" or "barrier"
  std::string_view site;       ///< who asked, e.g. "model.decoder.layers.3.fc2 forward"
  at::Tensor& buffer;          ///< this rank's contribution; undefined for a barrier
};

/// Called before every collective of a group. Returns false to drop the call on this rank. Meant for tracing and for
/// breaking a model on purpose (see src/verify/faults.h); all ranks must agree on what is dropped.
using CollectiveHook = std::function<bool(const Collective&)>;

/// What the calls of one site added up to.
struct CollectiveCount {
  int64_t calls = 0;
  int64_t bytes = 0;   ///< of the tensors handed in by this rank (uneven parts of an all_gather: padded to the largest)
  double seconds = 0;  ///< that the caller was kept waiting
};

/// A collective that runs while its caller goes on.
class PendingCollective {
 public:
  /// Nothing is under way.
  PendingCollective() = default;
  /// Returns when the collective is done, or at once when nothing is under way. Counts the call; a failure is the
  /// c10::DistBackendError of a call that blocks. To be called in the thread that uses the group. A collective whose
  /// PendingCollective is destroyed before runs on, uncounted.
  void wait();
  bool under_way() const { return wait_ != nullptr; }

 private:
  friend class ProcessGroup;
  explicit PendingCollective(std::function<void()> wait) : wait_(std::move(wait)) {}

  std::function<void()> wait_;
};

/// The ranks that run a collective together. Cheap to copy: copies share the connection, the counts and the hook.
///
/// A group of one is an ordinary group whose collectives return at once, so serial code needs no branches. All ranks of
/// a group must make the same calls in the same order with the same sizes. A peer that is gone or does not answer
/// within the group's time limit is a c10::DistBackendError that names the collective, the site and this rank; with a
/// RankWatch also the peer.
class ProcessGroup {
 public:
  /// A group of one rank.
  ProcessGroup();

  /// `name` says what the group is for ("tensor", "data", "world") and appears in errors.
  ProcessGroup(c10::intrusive_ptr<c10d::Backend> backend, std::string name);

  int64_t rank() const;
  int64_t size() const;
  const std::string& name() const;
  /// What moves the numbers: "gloo" or "shm" (shared memory); "none" in a group of one.
  std::string backend_name() const;

  /// Reduces `tensor` (any shape, same on every rank) in place; every rank ends with the same bits. Sums of bfloat16
  /// and float16 are taken in float32 (over Gloo they also travel so) and rounded once.
  /// `tensor` must be fresh: nothing that autograd saved may share its memory. A tensor that is not contiguous is
  /// copied.
  void all_reduce_(at::Tensor& tensor, std::string_view site,
                   c10d::ReduceOp::RedOpType op = c10d::ReduceOp::RedOpType::SUM) const;

  /// Starts to add `tensor`, contiguous, over the ranks in place. Until the returned object's wait() has returned,
  /// nobody may touch the tensor's memory, which is kept alive.
  PendingCollective start_all_reduce_(const at::Tensor& tensor, std::string_view site) const;

  /// Puts the parts of dimension `dim` together: rank r contributes layout.range(r).size elements of it and every rank
  /// gets all layout.total().
  at::Tensor all_gather(const at::Tensor& part, int64_t dim, const ShardLayout& layout, std::string_view site) const;

  /// Adds `whole` over the ranks, in the order of the ranks, and returns this rank's part, layout.range(rank()), of
  /// dimension `dim`, in memory of its own. bfloat16 and float16 travel as they are; their sums are taken in float32
  /// and rounded once.
  at::Tensor reduce_scatter(const at::Tensor& whole, int64_t dim, const ShardLayout& layout,
                            std::string_view site) const;

  /// Overwrites `tensor` with the one of rank `root`; the same shape and dtype on every rank.
  void broadcast_(at::Tensor& tensor, int64_t root, std::string_view site) const;

  /// Returns when every rank has called it.
  void barrier(std::string_view site) const;

  /// Counts by site, since the group was made or reset_counts() was called.
  const std::map<std::string, CollectiveCount, std::less<>>& counts() const;
  void reset_counts();

  /// From now on, all ranks compare what they are about to do before each collective over Gloo, and a rank that makes
  /// another call than the others is an error on all of them in place of a hang or of garbage. Costs a small all_gather
  /// a call. Over shared memory operation, type and size are always compared. Set it on all ranks.
  void set_checks_calls(bool checks);

  /// From now on, `watch` is told of every collective and asked to explain failures. `group`: 0 world, 1 tensor, 2
  /// data.
  void set_watch(std::shared_ptr<RankWatch> watch, int64_t group);

  /// Replaces the hook; an empty one removes it.
  void set_hook(CollectiveHook hook);

 private:
  struct State;

  using Launch = std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&)>;

  // Calls `body`, a part of a collective, and returns how long it took in seconds. A failure gets its context.
  // `begins`: the collective's first part.
  double timed(std::string_view operation, std::string_view site, bool begins, c10::function_ref<void()> body) const;
  // Launches a collective unless the hook drops it (then nothing is under way). Its wait counts it, as one of
  // `handed_in`, and gives a failure its context. `buffer`: what is sent.
  PendingCollective start(std::string_view operation, std::string_view site, const at::Tensor& handed_in,
                          at::Tensor& buffer, const Launch& launch) const;
  // The same, and waits. Returns false if the collective was dropped.
  bool run(std::string_view operation, std::string_view site, const at::Tensor& handed_in, at::Tensor& buffer,
           const Launch& launch) const;

  std::shared_ptr<State> state_;
};

}  // namespace optp

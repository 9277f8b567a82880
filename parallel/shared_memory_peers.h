// How the ranks of one host wait for each other: counters in shared memory, and a look at who still lives.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <type_traits>

namespace optp {

/// What a rank does in a step. All ranks must do the same; the operation's number orders the names in the .cpp.
struct SharedCall {
  enum Operation : int32_t { kNone, kAllReduce, kAllGather, kReduceScatter, kBroadcast, kBarrier };

  Operation operation = kNone;
  int32_t dtype = 0;   ///< c10::ScalarType
  int32_t detail = 0;  ///< the reduction, or the rank that broadcasts
  int32_t part = 0;    ///< of a tensor that passes through the memory in parts
  int64_t count = 0;   ///< elements of the whole tensor

  bool operator==(const SharedCall&) const = default;
  /// "part 2 of all_reduce of 12 Float (sum)"
  std::string text() const;
};

/// One rank's words in the shared memory, in cache lines of their own. All zeros is the state before the first step.
struct alignas(128) SharedRankState {
  std::atomic<uint32_t> step;      ///< the last that this rank has reached; counts around; a futex
  std::atomic<uint32_t> sleepers;  ///< ranks that sleep until `step` moves
  std::atomic<int32_t> pid;
  std::atomic<uint32_t> gone;  ///< 1: the rank has left its group or failed
  SharedCall calls[2];         ///< of the last two steps, by parity
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::is_trivially_destructible_v<SharedRankState>);

/// Steps that all ranks take together. Between two steps nobody is ahead by more than one, so what a rank writes for
/// step s may be read by the others until it writes for step s + 2.
class SharedPeers {
 public:
  /// `states`: one for each of `size` ranks, all zeros before the first rank makes its object.
  SharedPeers(SharedRankState* states, int64_t rank, int64_t size, std::chrono::milliseconds timeout);
  SharedPeers(const SharedPeers&) = delete;
  SharedPeers& operator=(const SharedPeers&) = delete;
  /// Tells those who wait for this rank that it has gone.
  ~SharedPeers();

  /// 0 and 1 in turn: which of its two places a rank may write before the next meet().
  uint32_t parity() const { return (step_ + 1) & 1; }

  /// Says that this rank is ready for `call`, and returns when all are: then everything that they wrote before is
  /// visible. Waits awake for a while where every rank has a core of its own, else asleep. Throws c10::DistBackendError
  /// that names the rank which does something else, has ended, or does not come within the time limit; after that the
  /// group is of no use, and every call throws the same.
  void meet(const SharedCall& call);

 private:
  void wait_for(int64_t peer, uint32_t step, const SharedCall& call);
  bool reached(int64_t peer, uint32_t step) const;
  // Why the peer cannot come any more; empty if it may.
  std::string loss_of(int64_t peer) const;
  void give_up(const std::string& reason);
  [[noreturn]] void fail(const std::string& reason);

  SharedRankState* states_;
  int64_t rank_, size_;
  std::chrono::milliseconds timeout_;
  bool awake_;  // spin before sleeping
  uint32_t step_ = 0;
  std::string failure_;
};

}  // namespace optp

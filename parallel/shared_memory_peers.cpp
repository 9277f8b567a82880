#include "parallel/shared_memory_peers.h"

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <unistd.h>

#include <array>
#include <ctime>

#include "parallel/collective_check.h"
#include "parallel/host_process.h"

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook(50);     // how long to sleep before looking whether the peer lives
constexpr std::chrono::microseconds kAwake(2000);  // how long to wait awake: longer than ranks in step differ
constexpr int kPausesBetweenLooks = 64;

void futex_sleep(std::atomic<uint32_t>& word, uint32_t seen) {
  const timespec limit{0, std::chrono::nanoseconds(kLook).count()};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int usable_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

const char* reduction_name(int32_t op) {
  switch (static_cast<c10d::ReduceOp::RedOpType>(op)) {
    case c10d::ReduceOp::SUM:
      return "sum";
    case c10d::ReduceOp::MAX:
      return "maximum";
    case c10d::ReduceOp::MIN:
      return "minimum";
    default:
      return "another reduction";
  }
}

}  // namespace

std::string SharedCall::text() const {
  static constexpr std::array<const char*, 6> kNames{"nothing",        "all_reduce", "all_gather",
                                                     "reduce_scatter", "broadcast",  "barrier"};
  if (operation == kNone || operation == kBarrier) return kNames[operation];
  std::string text = c10::str(part > 0 ? c10::str("part ", part, " of ") : "", kNames[operation], " of ", count, " ",
                              c10::toString(static_cast<c10::ScalarType>(dtype)));
  if (operation == kAllReduce || operation == kReduceScatter) text += c10::str(" (", reduction_name(detail), ")");
  if (operation == kBroadcast) text += c10::str(" from rank ", detail);
  return text;
}

SharedPeers::SharedPeers(SharedRankState* states, int64_t rank, int64_t size, std::chrono::milliseconds timeout)
    : states_(states), rank_(rank), size_(size), timeout_(timeout), awake_(usable_cores() >= size) {
  states_[rank].pid = getpid();
}

SharedPeers::~SharedPeers() {
  states_[rank_].gone = 1;
  futex_wake_all(states_[rank_].step);
}

bool SharedPeers::reached(int64_t peer, uint32_t step) const {
  return static_cast<int32_t>(states_[peer].step.load(std::memory_order_acquire) - step) >= 0;
}

void SharedPeers::meet(const SharedCall& call) {
  if (!failure_.empty()) fail(failure_);
  SharedRankState& own = states_[rank_];
  ++step_;
  own.calls[step_ & 1] = call;
  own.step.store(step_, std::memory_order_seq_cst);
  if (own.sleepers.load(std::memory_order_seq_cst) > 0) futex_wake_all(own.step);
  for (int64_t peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    wait_for(peer, step_, call);
    const SharedCall& theirs = states_[peer].calls[step_ & 1];
    if (theirs == call) continue;
    const DisagreementError error(call.text(), peer, theirs.text());
    give_up(error.what_without_backtrace());
    throw error;
  }
}

void SharedPeers::wait_for(int64_t peer, uint32_t step, const SharedCall& call) {
  if (reached(peer, step)) return;
  const Clock::time_point begin = Clock::now();
  while (awake_ && Clock::now() - begin < kAwake) {
    for (int i = 0; i < kPausesBetweenLooks; ++i) {
      if (reached(peer, step)) return;
      pause_briefly();
    }
  }
  SharedRankState& state = states_[peer];
  while (!reached(peer, step)) {
    state.sleepers.fetch_add(1, std::memory_order_seq_cst);
    const uint32_t seen = state.step.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - step) < 0 && state.gone == 0) futex_sleep(state.step, seen);
    state.sleepers.fetch_sub(1, std::memory_order_seq_cst);
    if (reached(peer, step)) return;
    if (const std::string loss = loss_of(peer); !loss.empty() && !reached(peer, step)) {
      fail(c10::str("rank ", peer, " ", loss, "; it last took part in ", state.calls[seen & 1].text()));
    }
    if (Clock::now() - begin > timeout_) {
      fail(c10::str("rank ", peer, " (process ", state.pid.load(), ") did not come to ", call.text(), " within ",
                    std::chrono::duration<double>(timeout_).count(), " s; it last took part in ",
                    state.calls[seen & 1].text()));
    }
  }
}

std::string SharedPeers::loss_of(int64_t peer) const {
  if (states_[peer].gone != 0) return "has given up or left the group";
  const pid_t pid = states_[peer].pid;
  if (pid == 0 || pid == getpid()) return {};  // not begun yet, or a thread of this process
  if (process_has_ended(pid)) return c10::str("(process ", pid, ") has ended");
  return {};
}

void SharedPeers::give_up(const std::string& reason) {
  failure_ = reason;
  states_[rank_].gone = 1;
  futex_wake_all(states_[rank_].step);
}

void SharedPeers::fail(const std::string& reason) {
  if (failure_.empty()) give_up(reason);
  C10_THROW_ERROR(DistBackendError, failure_);
}

}  // namespace optp

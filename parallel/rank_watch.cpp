#include "parallel/rank_watch.h"

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "parallel/host_process.h"
#include "parallel/rank_status.h"

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kBeat = 500ms;
constexpr auto kSilence = 2000ms;      // a rank that shows nothing new for so long is silent
constexpr auto kLongWait = 1000ms;     // a rank that waits so long looks at the others
constexpr auto kExplainTime = 2500ms;  // longer than kSilence
constexpr auto kLeaveTime = 3000ms;
constexpr size_t kMostRanksNamed = 8;

std::string key_of(int64_t rank) { return std::to_string(rank); }

std::string join(const std::vector<std::string>& parts, const char* separator) {
  std::string all;
  for (size_t i = 0; i < std::min(parts.size(), kMostRanksNamed); ++i) all += (i > 0 ? separator : "") + parts[i];
  if (parts.size() > kMostRanksNamed) all += c10::str(separator, parts.size() - kMostRanksNamed, " more");
  return all;
}

}  // namespace

struct RankWatch::State {
  struct Peer {
    RankStatus status;  // beats 0: it has not shown any
    Clock::time_point heard;
  };
  // Clauses about the other ranks, each in one list.
  struct Findings {
    std::vector<std::string> ended, silent, left, late, others;
  };

  int64_t rank = 0;
  Members members;
  bool serves_store = false;

  std::mutex mutex;
  std::condition_variable changed;
  RankStatus own;
  Clock::time_point since = Clock::now();  // own collective began, or ended
  std::vector<Peer> peers;                 // by world rank
  Clock::time_point last_read;
  int64_t reads = 0, reads_wanted = 0;  // of all peers
  std::string store_failure;            // not empty: the store is lost
  bool leaving = false, finished = true;

  RankStatus own_now() const {
    RankStatus status = own;
    status.milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - since).count();
    return status;
  }

  // The thread's part.
  void run(c10d::Store& store);
  void talk(c10d::Store& store);
  void read_peers(c10d::Store& store);
  void see_others_off(c10d::Store& store);

  // The callers' part; both take the lock.
  bool ask();
  Findings look();
  bool is_late(int64_t peer) const;
  bool is_silent(int64_t peer) const { return Clock::now() - peers[static_cast<size_t>(peer)].heard > kSilence; }
};

RankWatch::RankWatch() : state_(std::make_shared<State>()) {}

RankWatch::RankWatch(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, Members members, bool serves_store)
    : state_(std::make_shared<State>()) {
  State& state = *state_;
  state.rank = rank;
  state.members = std::move(members);
  state.serves_store = serves_store;
  state.peers.resize(state.members[0].size());
  state.own.process = getpid();
  state.own.host = host_name();
  state.own.identity = host_identity();
  state.finished = false;
  // Detached, because the network can hold it. With a connection of its own, because whoever waits for a key keeps
  // everyone else off his; the store itself is kept for its server.
  std::thread([state = state_, store, connection = store->clone()] { state->run(*connection); }).detach();
}

RankWatch::~RankWatch() {
  std::unique_lock lock(state_->mutex);
  state_->leaving = true;
  if (state_->own.phase == RankStatus::Phase::running) state_->own.phase = RankStatus::Phase::left;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, kLeaveTime, [&] { return state_->finished; });
}

void RankWatch::State::run(c10d::Store& store) {
  std::string failure;
  try {
    talk(store);
    if (serves_store) see_others_off(store);
  } catch (const c10::Error& error) {
    failure = error.what_without_backtrace();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  const std::lock_guard lock(mutex);
  store_failure = failure;
  finished = true;
  changed.notify_all();
}

void RankWatch::State::talk(c10d::Store& store) {
  std::unique_lock lock(mutex);
  for (bool last = false; !last;) {
    last = leaving;
    ++own.beats;
    const std::string text = own_now().text();
    const bool reads_now = reads_wanted > reads || (own.waiting && Clock::now() - since > kLongWait);
    lock.unlock();
    store.set(key_of(rank), std::vector<uint8_t>(text.begin(), text.end()));
    if (reads_now) read_peers(store);
    lock.lock();
    if (reads_now) ++reads;
    changed.notify_all();
    if (!last) changed.wait_for(lock, kBeat, [&] { return leaving || reads_wanted > reads; });
  }
}

void RankWatch::State::read_peers(c10d::Store& store) {
  std::vector<int64_t> ranks;
  std::vector<std::string> keys;
  for (int64_t peer = 0; peer < static_cast<int64_t>(peers.size()); ++peer) {
    if (peer != rank) ranks.push_back(peer);
  }
  for (const int64_t peer : ranks) keys.push_back(key_of(peer));
  if (!store.check(keys)) {  // some have not shown anything yet, for which multiGet would wait
    std::erase_if(ranks, [&](int64_t peer) { return !store.check({key_of(peer)}); });
    keys.clear();
    for (const int64_t peer : ranks) keys.push_back(key_of(peer));
  }
  const std::vector<std::vector<uint8_t>> texts = store.multiGet(keys);
  const std::lock_guard lock(mutex);
  const Clock::time_point now = Clock::now();
  const bool regular = now - last_read < 2 * kBeat;  // else nobody knows how long a peer has been silent
  last_read = now;
  for (size_t i = 0; i < ranks.size(); ++i) {
    Peer& known = peers[static_cast<size_t>(ranks[i])];
    RankStatus status = RankStatus::parse({texts[i].begin(), texts[i].end()});
    if (!regular || known.status.beats != status.beats) known.heard = now;
    known.status = std::move(status);
  }
}

void RankWatch::State::see_others_off(c10d::Store& store) {
  const Clock::time_point deadline = Clock::now() + kLeaveTime;
  const auto gone = [&](size_t peer) {
    const RankStatus& status = peers[peer].status;
    return static_cast<int64_t>(peer) == rank || status.phase != RankStatus::Phase::running ||
           (status.identity == own.identity && process_has_ended(static_cast<pid_t>(status.process)));
  };
  for (bool all = false; !all && Clock::now() < deadline; std::this_thread::sleep_for(5ms)) {
    read_peers(store);
    const std::lock_guard lock(mutex);
    all = true;
    for (size_t peer = 0; peer < peers.size(); ++peer) all = all && gone(peer);
  }
}

// Has the thread read what all show, from now on; false if it cannot.
bool RankWatch::State::ask() {
  std::unique_lock lock(mutex);
  const int64_t wanted = reads_wanted = std::max(reads_wanted, reads) + 1;
  changed.notify_all();
  return changed.wait_for(lock, kLongWait, [&] { return finished || reads >= wanted; }) && !finished;
}

// A member of the group that has not begun the collective that this rank is in.
bool RankWatch::State::is_late(int64_t peer) const {
  const auto group = static_cast<size_t>(own.group);
  const std::vector<int64_t>& ranks = members[group];
  const RankStatus& theirs = peers[static_cast<size_t>(peer)].status;
  return std::find(ranks.begin(), ranks.end(), peer) != ranks.end() && theirs.calls[group] < own.calls[group];
}

RankWatch::State::Findings RankWatch::State::look() {
  // Who has ended before what it showed is read had shown everything, its failure included.
  std::vector<bool> ended(peers.size(), false);
  {
    const std::lock_guard lock(mutex);
    for (size_t peer = 0; peer < peers.size(); ++peer) {
      const RankStatus& status = peers[peer].status;
      ended[peer] = status.beats > 0 && status.process != own.process && status.identity == own.identity &&
                    process_has_ended(static_cast<pid_t>(status.process));
    }
  }
  const bool fresh = ask();
  const std::lock_guard lock(mutex);
  Findings found;
  for (int64_t peer = 0; peer < static_cast<int64_t>(peers.size()); ++peer) {
    const RankStatus& status = peers[static_cast<size_t>(peer)].status;
    if (peer == rank || status.beats == 0 || status.phase == RankStatus::Phase::failed) continue;
    const std::string name = c10::str("rank ", peer, " (process ", status.process, " on ", status.host, ")");
    const std::string seen = fresh ? ", last seen at " + status.doing() : "";
    if (status.phase == RankStatus::Phase::left) {
      found.left.push_back(name + " has left the run" + seen);
    } else if (ended[static_cast<size_t>(peer)]) {
      found.ended.push_back(name + " has ended" + seen);
    } else if (is_silent(peer)) {
      found.silent.push_back(name + " has stopped or cannot be reached" + seen);
    } else if (is_late(peer)) {
      found.late.push_back(name + " has not come, it is at " + status.doing());
    } else {
      found.others.push_back(c10::str("rank ", peer, " is at ", status.doing()));
    }
  }
  return found;
}

void RankWatch::set_progress(const std::string& progress) {
  const std::lock_guard lock(state_->mutex);
  state_->own.progress = progress;
}

void RankWatch::enter(int64_t group, std::string_view operation, std::string_view site, bool begins) {
  const std::lock_guard lock(state_->mutex);
  RankStatus& own = state_->own;
  own.waiting = true;
  own.group = group;
  own.operation = operation;
  own.site = site;
  if (begins) ++own.calls[static_cast<size_t>(group)];
  state_->since = Clock::now();
}

void RankWatch::leave() {
  const std::lock_guard lock(state_->mutex);
  state_->own.waiting = false;
  state_->since = Clock::now();
}

std::string RankWatch::lost() {
  const State::Findings found = state_->look();
  return join(found.ended.empty() ? found.left : found.ended, "; ");
}

std::string RankWatch::explain(const std::string& reason) {
  State& state = *state_;
  const Clock::time_point begin = Clock::now();
  const bool waited = begin - state.since > kExplainTime;  // then the others have been looked at all the time
  State::Findings found;
  const std::vector<std::string>* lost = nullptr;
  do {
    if (lost != nullptr) std::this_thread::sleep_for(50ms);
    found = state.look();
    lost = !found.ended.empty() ? &found.ended : !found.silent.empty() ? &found.silent : &found.left;
  } while (lost->empty() && !waited && Clock::now() - begin < kExplainTime);

  std::unique_lock lock(state.mutex);
  std::vector<std::string> clauses = *lost;
  for (size_t peer = 0; peer < state.peers.size() && clauses.empty(); ++peer) {
    const RankStatus& status = state.peers[peer].status;
    if (status.phase == RankStatus::Phase::failed) clauses = {c10::str("rank ", peer, " has failed: ", status.failure)};
  }
  if (clauses.empty()) {
    clauses = {reason};
    if (!state.store_failure.empty()) {
      clauses.emplace_back(
          "the store does not answer either, so rank 0 or the launcher, whichever serves it, has ended");
    }
    if (waited) clauses.insert(clauses.end(), found.late.begin(), found.late.end());
  }
  // Where the others are tells what this rank has waited for.
  if (waited) clauses.insert(clauses.end(), found.others.begin(), found.others.end());
  state.own.phase = RankStatus::Phase::failed;
  state.own.failure = join(clauses, "; ");
  const std::string explanation = state.own.failure;
  lock.unlock();
  state.ask();  // it has been shown when this returns
  return explanation;
}

std::string RankWatch::report() {
  State& state = *state_;
  const bool alone = state.peers.empty();
  if (!alone) {
    std::this_thread::sleep_for(kBeat + 100ms);
    state.ask();
  }
  const std::lock_guard lock(state.mutex);
  const RankStatus status = state.own_now();
  if (alone) return status.progress.empty() ? "starting" : status.progress;
  std::string text = status.doing();
  if (!status.waiting || status.milliseconds < std::chrono::milliseconds(kLongWait).count()) return text;
  std::vector<std::string> late;
  for (const int64_t peer : state.members[static_cast<size_t>(status.group)]) {
    // One that has begun the collective and was stopped in it is waited for as well.
    if (peer != state.rank && (state.is_silent(peer) || state.is_late(peer))) late.push_back(std::to_string(peer));
  }
  return text + (late.empty() ? "" : " for rank " + join(late, ", "));
}

}  // namespace optp

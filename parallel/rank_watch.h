// What the ranks of a run tell each other beside their collectives, so that an error can name the rank that caused it.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace c10d {
class Store;
}

namespace optp {

/// Keeps what this rank is doing, and shows it to the others through the store twice a second. A rank that waits for
/// longer than a second, or whose collective has failed, looks at what the others show.
///
/// enter, leave and explain belong to the thread that runs collectives; the others may be called from any.
class RankWatch {
 public:
  /// World ranks of the members of this rank's three groups: world, tensor, data.
  using Members = std::array<std::vector<int64_t>, 3>;

  /// A rank alone: nothing to watch.
  RankWatch();
  /// `store`: with keys of its own; used by a thread for as long as this lives. `serves_store`: the store ends with
  /// this process, so the destructor waits some seconds for the others to leave first.
  RankWatch(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, Members members, bool serves_store);
  /// Tells the others that this rank leaves, or has failed.
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  /// Where the work is: "step 12".
  void set_progress(const std::string& progress);

  /// This rank waits in a collective of `group` (0 world, 1 tensor, 2 data). `begins`: not only again, in a collective
  /// that it has begun before.
  void enter(int64_t group, std::string_view operation, std::string_view site, bool begins);
  void leave();

  /// Which ranks have ended though the run goes on, as a clause; empty if none is known to have. To be asked while
  /// connecting, when nobody has a reason to leave. Takes a moment.
  std::string lost();

  /// Why the collective that was entered last has failed: the ranks that have ended, are silent, have failed or have
  /// not come, and where they are, in clauses; `reason` if there is nothing better. The others will be told the same.
  /// Takes up to 3 s: on another host only silence tells of a death.
  std::string explain(const std::string& reason);

  /// What this rank does and for whom it waits: "step 12, waiting for 20.0 s in all_reduce at fc2 (tensor group) for
  /// rank 1". Takes a second where there are other ranks, who must have told.
  std::string report();

 private:
  struct State;

  std::shared_ptr<State> state_;  // shared with the thread, which is left behind if the network holds it
};

}  // namespace optp

// Times an action that all ranks take together.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "parallel/mesh.h"

namespace optp {

struct Measurement {
  std::vector<double> seconds;  ///< of each iteration, on this rank; ascending
  double comm_fraction = 0;     ///< share of that time which this rank spent in collectives, waits included
  int64_t peak_rss_bytes = 0;   ///< largest resident memory of any rank since the measurement's PeakMemory was made

  double median() const;
};

/// Forgets what this process's memory was before, so that each measurement in a process has a peak of its own (Linux:
/// /proc/self/clear_refs; elsewhere the peak of all so far counts). To be made before the model is built.
class PeakMemory {
 public:
  PeakMemory();
  /// The largest peak of any rank. Collective over mesh.world().
  int64_t largest(const Mesh& mesh) const;
};

/// Calls `action` `warmup` times, then `iterations` times with a clock. All ranks begin an iteration together; the wait
/// for that counts nowhere. Collective over mesh.world().
Measurement measure(const Mesh& mesh, const PeakMemory& memory, int64_t warmup, int64_t iterations,
                    const std::function<void()>& action);

}  // namespace optp

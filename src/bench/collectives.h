// What the collectives of a group cost, by size.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "parallel/mesh.h"

namespace optp {

struct CollectiveTime {
  std::string operation;    ///< as ProcessGroup spells it
  int64_t bytes = 0;        ///< of the whole tensor: what a rank hands to all_reduce, what all_gather gives it
  double microseconds = 0;  ///< median of single calls that all ranks begin together, on the slowest rank
};

/// Measures float32 all_reduce, all_gather, reduce_scatter and broadcast of 4 KiB, 24 KiB, 3 MiB and 64 MiB, and the
/// barrier (0 bytes), in the tensor-parallel group; hands each to `report` as it is known, on every rank. `iterations`
/// calls of each; 0: as many as take about a second, 2000 at most. Collective over mesh.world().
void bench_collectives(const Mesh& mesh, int64_t iterations, const std::function<void(const CollectiveTime&)>& report);

}  // namespace optp

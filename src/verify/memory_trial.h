// Two training steps of the very configuration that is verified: what a rank took and sent for them, beside the plan.
#pragma once

#include <cstdint>
#include <vector>

#include "src/plan/plan.h"
#include "src/process_memory.h"

namespace optp {

class Session;

/// Of this rank.
struct MemoryTrial {
  RankPlan planned;
  std::vector<PlannedCollective> planned_collectives;

  int64_t parameters = 0;                      ///< elements
  int64_t parameter_bytes = 0;                 ///< of the parameters' storages
  int64_t gradient_bytes = 0;                  ///< that were allocated for the gradients' buffers and are alive
  int64_t optimizer_bytes = 0;                 ///< the same for AdamW, its state and master weights
  int64_t peak_bytes = 0;                      ///< growth of the process's anonymous memory, at most, since `start`
  std::vector<PlannedCollective> collectives;  ///< of the second step; the operation is left empty
};

/// Takes the steps with `session`'s model, whose weights are lost, and AdamW. To be called before the process holds a
/// reference; `start` has followed its memory since before the model was built, and `gradient_bytes` were allocated for
/// session.gradients(). Collective.
MemoryTrial try_memory(Session& session, const AnonymousGrowth& start, int64_t gradient_bytes);

}  // namespace optp

// What training a model will take: the memory of every rank and what it sends in a step, known without the memory and
// without the ranks.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "modules/opt_config.h"
#include "src/plan/step_collectives.h"
#include "src/plan/training_shape.h"
#include "src/train/optimizer.h"

namespace optp {

/// What is planned: a training run as far as memory and communication depend on it.
struct PlanOptions {
  OptConfig config;
  at::ScalarType type = at::kFloat;
  int64_t tp = 1;
  int64_t dp = 1;
  TrainingShape shape;
  OptimizerOptions optimizer;
  std::vector<std::string> freeze;  ///< patterns of parameters that are not trained (src/train/freeze.h)
};

/// Memory of one rank, in bytes unless it says otherwise.
struct RankPlan {
  int64_t rank = 0;
  int64_t parameters = 0;  ///< elements held here
  int64_t parameter_bytes = 0;
  int64_t gradient_bytes = 0;    ///< gradient buffers
  int64_t optimizer_bytes = 0;   ///< state and master weights
  int64_t activation_bytes = 0;  ///< the most that forward and backward hold at once beside all that
  int64_t peak_bytes = 0;        ///< the sum
};

struct Plan {
  int64_t parameters = 0;  ///< of the whole model
  std::vector<RankPlan> ranks;
  std::vector<PlannedCollective> collectives;  ///< of rank 0 in one step; no rank sends more
};

/// The sizes come from the model itself, built for each rank of a mesh that is not connected, on a device that has no
/// memory: its parameters, gradient buffers and optimizer state are those of a real run. Activations and collectives
/// are worked out from the shapes (step_memory.h, step_collectives.h). Throws c10::ValueError when the options do not
/// fit the model or each other.
Plan make_plan(const PlanOptions& options);

/// What rank `rank` alone will need and send.
RankPlan plan_rank(const PlanOptions& options, int64_t rank);
std::vector<PlannedCollective> plan_collectives(const PlanOptions& options, int64_t rank);

/// A table with a line for each rank, and one of the collectives, in which the layers share their lines.
std::string plan_text(const PlanOptions& options, const Plan& plan);
/// The object that `optp plan --json` writes.
std::string plan_json(const PlanOptions& options, const Plan& plan);

}  // namespace optp

// A short training run of both models on the same batches, for the checks that need one.
#pragma once

#include <vector>

#include "src/verify/session.h"

namespace optp {

struct TrainingCurve {
  std::vector<double> model;      ///< mean loss of each epoch
  std::vector<double> reference;  ///< the same
  double learning_rate = 0;       ///< of both
  double max_difference = 0;      ///< largest |difference| of any step's loss; NaN if one is not finite
};

/// Trains both models from where they are: `epochs` passes over `batches` fixed batches, SGD with momentum 0.9. Not
/// Adam, which turns the rounding of a gradient into full-size steps, so that two right programs part. The learning
/// rate suits models of any size: a twentieth of Polyak's step, loss / |gradient|^2, on the first batch (Polyak,
/// "Introduction to Optimization", 1987, section 5.3). Collective.
TrainingCurve train_both(Session& session, int64_t epochs, int64_t batches);

}  // namespace optp

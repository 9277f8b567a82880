// A short training run of both models on the same batches, for the checks that need one.
#pragma once

#include <cstdint>
#include <vector>

#include "src/verify/session.h"

namespace optp {

struct TrainingPlan {
  int64_t batches = 4;      ///< of the fixed data set
  int64_t epochs = 3;       ///< at least so many passes over it
  int64_t most_epochs = 3;  ///< more, up to so many, until the reference's loss has fallen comfortably
};

struct TrainingCurve {
  std::vector<double> model;           ///< mean loss of each epoch
  std::vector<double> reference;       ///< the same
  std::vector<double> learning_rates;  ///< of each step, for both
  double max_difference = 0;           ///< largest |difference| of any step's loss; NaN if one is not finite
};

/// What the last epoch's loss may be of the first's, and what the reference's falls to before training ends early.
inline constexpr double kLargestFall = 0.9;
inline constexpr double kComfortableFall = 0.8;

/// Trains both models from where they are by gradient descent. Not Adam, which turns the rounding of a gradient into
/// full-size steps, so that two right programs part.
///
/// No learning rate suits every model, so the reference searches for that of each step, and both models take it: from
/// Polyak's step, loss / |gradient|^2, which the linear model says is enough (Polyak, "Introduction to Optimization",
/// 1987, section 5.3), and at most twice the step before, it is halved until the loss of the batch falls by half of
/// what the linear model promises (Armijo's rule, 1966; for batches: Vaswani et al., "Painless stochastic gradient",
/// 2019). Such a step overshoots in no direction, so rounding is not amplified either. Collective.
TrainingCurve train_both(Session& session, const TrainingPlan& plan);

}  // namespace optp

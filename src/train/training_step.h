// One optimizer step: micro-batches forward and backward, the gradient of all copies, the update.
#pragma once

#include <cstdint>

#include "parallel/gradients.h"
#include "src/train/trainer.h"

namespace optp {

/// What all ranks know after a step, the same bits on each.
struct StepOutcome {
  double loss = 0;
  double grad_norm = 0;
  bool skipped = false;
  int64_t targets = 0;  ///< that counted, of all copies
  int stop_code = 0;    ///< the largest that a rank passed
  int64_t peak_rss_bytes = 0;
};

class TrainingStep {
 public:
  /// The references must outlive the object. `rows`: examples in a micro-batch. `grad_clip` 0: none.
  TrainingStep(const LossFunction& loss_sum, const Mesh& mesh, Gradients& gradients, Optimizer& optimizer, int64_t rows,
               double grad_clip);

  /// Takes step `step` (from 1) on this copy's part of the batch, which begins at `first_example` of it. Collective.
  StepOutcome run(const Examples& part, int64_t step, int64_t first_example, double lr, int stop_code);

 private:
  double backward(const Examples& part, int64_t step, int64_t first_example, int64_t targets);

  const LossFunction& loss_sum_;
  Mesh mesh_;
  Gradients& gradients_;
  Optimizer& optimizer_;
  int64_t rows_;
  double grad_clip_;
};

}  // namespace optp

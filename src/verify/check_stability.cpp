// Check "stability": several epochs on a fixed data set.

#include "src/verify/checks.h"
#include "src/verify/training.h"

namespace optp {

Measurements check_stability(Session& session) {
  session.reset_weights();
  constexpr int64_t kBatches = 4;
  const TrainingCurve curve = train_both(session, session.options().epochs, kBatches);
  Measurements rows;
  for (size_t epoch = 0; epoch < curve.model.size(); ++epoch) {
    Measurement row = measure_loss("mean loss of epoch " + std::to_string(epoch + 1), curve.model[epoch],
                                   curve.reference[epoch], session.options().loss_tolerance);
    rows.push_back(row);
  }
  rows.push_back(measure("largest loss difference of a step", curve.max_difference, session.options().loss_tolerance,
                         std::to_string(session.options().epochs * kBatches) + " steps, SGD with momentum 0.9, lr " +
                             short_number(curve.learning_rate)));
  rows.push_back(measure("last epoch's loss / first epoch's", curve.model.back() / curve.model.front(), 0.9));
  rows.push_back(measure("replicated parameters that differ between ranks",
                         static_cast<double>(count_unequal_replicas(session, /*gradients=*/false)), 0,
                         "bit for bit, after training"));
  return rows;
}

}  // namespace optp

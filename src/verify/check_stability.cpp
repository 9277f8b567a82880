// Check "stability": several epochs on a fixed data set.

#include <algorithm>

#include "src/log.h"
#include "src/verify/checks.h"
#include "src/verify/report_words.h"
#include "src/verify/training.h"

namespace optp {
namespace {

// Where ReLUs drive the float32 runs apart, the float64 runs must stay this close, and the float32 runs within this
// share of the first epoch's loss.
constexpr double kExactLossLimit = 1e-6;
constexpr double kLargestDrift = 0.01;

TrainingCurve train(Session& session) {
  session.reset_weights();
  const int64_t asked = session.options().epochs;
  return train_both(session, {.batches = 4, .epochs = asked > 0 ? asked : 3, .most_epochs = asked > 0 ? asked : 30});
}

// The losses of every epoch, and the largest difference of a step.
Measurements measure_losses(const TrainingCurve& curve, double limit, const std::string& note) {
  Measurements rows;
  for (size_t epoch = 0; epoch < curve.model.size(); ++epoch) {
    rows.push_back(measure_loss("mean loss of epoch " + std::to_string(epoch + 1) + note, curve.model[epoch],
                                curve.reference[epoch], limit));
  }
  const auto [smallest, largest] = std::minmax_element(curve.learning_rates.begin(), curve.learning_rates.end());
  rows.push_back(measure("largest loss difference of a step" + note, curve.max_difference, limit,
                         std::to_string(curve.learning_rates.size()) + " steps of gradient descent, learning rates " +
                             number_text(*smallest) + " to " + number_text(*largest)));
  return rows;
}

bool all_passed(const Measurements& rows) {
  return std::all_of(rows.begin(), rows.end(), [](const Measurement& row) { return row.passed; });
}

}  // namespace

Measurements check_stability(Session& session) {
  const VerifyOptions& options = session.options();
  const TrainingCurve curve = train(session);
  Measurements rows = measure_losses(curve, options.loss_tolerance, "");
  if (!all_passed(rows) && options.type == at::kFloat && options.fault.empty() &&
      session.config().activation_function() == "relu") {
    // Each ReLU whose input is so close to 0 that rounding decides its derivative moves the weights a little, which
    // brings more of them to the other side. In float64 hardly an input is that close.
    log_line(LogLevel::info, "        once more in float64: in float32 rounding decides the side of ReLUs");
    VerifyOptions exact_options = options;
    exact_options.type = at::kDouble;
    Session exact(exact_options, session.mesh());
    rows = measure_losses(train(exact), kExactLossLimit, ", float64");
    rows.push_back(measure("largest loss difference of a step in float32", curve.max_difference,
                           kLargestDrift * curve.reference.front(),
                           "ReLUs next to 0 drive the runs apart, so float64 decides; limit 0.01 x the first loss"));
  }
  rows.push_back(measure("last epoch's loss / first epoch's", curve.model.back() / curve.model.front(), kLargestFall));
  rows.push_back(measure("replicated parameters that differ between ranks",
                         static_cast<double>(count_unequal_replicas(session, /*gradients=*/false)), 0,
                         "bit for bit, after training"));
  return rows;
}

}  // namespace optp

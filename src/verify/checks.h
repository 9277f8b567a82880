// The seven checks of `optp verify`. Each starts from the same weights and can run alone.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/verify/check.h"
#include "src/verify/session.h"

namespace optp {

/// forward, backward, gradients, optimizers, memory, stability, end-to-end
const std::vector<std::string>& check_names();

/// Runs one check. Collective; the same result on every rank. A check that throws is a result with `error` set, except
/// that c10::DistError passes through: without the other ranks nothing can be checked.
CheckResult run_check(const std::string& name, Session& session);

/// Everything but what run_check adds: name, seconds, errors.
using Measurements = std::vector<Measurement>;
Measurements check_forward(Session& session);
Measurements check_backward(Session& session);
Measurements check_gradients(Session& session);
Measurements check_optimizers(Session& session);
Measurements check_memory(Session& session);
Measurements check_stability(Session& session);
Measurements check_end_to_end(Session& session);

/// A measurement of a difference: passes if `value` (max_abs unless given) is at most `limit`.
Measurement measure(std::string what, const Difference& difference, double limit, std::string detail = {});
/// A measurement of something counted or divided.
Measurement measure(std::string what, double value, double limit, std::string detail = {});
/// Two losses: |actual - expected| against `limit`, both printed to full precision.
Measurement measure_loss(std::string what, double actual, double expected, double limit);

/// The gradients of the last step, which was one on `batch` from the starting weights, against the reference's: each
/// tensor's largest difference relative to that tensor's largest gradient, and what is zero in exact arithmetic. Where
/// float32 leaves doubt the step is repeated in float64. Collective.
Measurements measure_gradients(Session& session, const Batch& batch);

/// Whether the gradient of this parameter is zero in exact arithmetic, so that floating point leaves rounding alone:
/// softmax ignores a shift of every key's score, and that is all a bias of the keys does.
bool has_zero_gradient(const std::string& parameter);

/// How many replicated parameters (with `gradients`: their gradients) are not bit for bit those of rank 0. Collective.
int64_t count_unequal_replicas(Session& session, bool gradients);

}  // namespace optp

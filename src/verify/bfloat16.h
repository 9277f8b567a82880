// What a verification in bfloat16 is held to.
//
// A sum in bfloat16 is off by 1/256 of itself at most, in every operation, so neither float32's limits nor any other
// fixed ones fit: what rounding does to a result depends on the model. It is measured instead. The reference runs in
// float32, from the weights that bfloat16 can hold, and once more in bfloat16, as plain torch::nn modules; the distance
// between these two is what the arithmetic costs. The sharded model may be at most three times as far from float32: no
// two programs round alike, and the error of a tensor of a few elements varies by that much. A mistake is larger: a
// gradient multiplied by two is 256 roundings off.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/train/optimizer.h"
#include "src/verify/checks.h"
#include "src/verify/optimizers.h"

namespace optp {

/// Losses in bfloat16 may differ by so much from float32's, unless --loss-tolerance says otherwise.
inline constexpr double kBFloat16LossTolerance = 0.02;

/// The limit for a relative distance from float32 when the reference in bfloat16 is `lost` away from it: three times
/// that, and four roundings (1/64) where it has lost hardly anything.
double bfloat16_limit(double lost);

/// |actual - expected| / |expected| in 2-norms over all elements.
double relative_distance(const at::Tensor& actual, const at::Tensor& expected);

/// Logits that all ranks have, against the reference's in float32; `rounded` are the reference's in bfloat16 on the
/// rank that holds it, elsewhere undefined. Collective, as the functions below.
Measurement measure_bfloat16_logits(Session& session, std::string what, const at::Tensor& actual,
                                    const at::Tensor& expected, const at::Tensor& rounded);

/// The gradients of the last step, which was one on `batch`, tensor by tensor, and their norm.
Measurements measure_bfloat16_gradients(Session& session, const Batch& batch);

/// The step that `optimizer` has taken from the starting weights with the gradients of the last backward pass: whether
/// every weight moved as the reference's, which took the same step, and whether the model's weights are the rounded
/// masters.
Measurements measure_bfloat16_step(Session& session, Optimizer& optimizer, double learning_rate);

/// `steps` steps of an optimizer on the sharded model, on the reference and on the reference in bfloat16, which keeps
/// float32 masters of its own: losses, and how all weights together moved.
Measurements measure_bfloat16_optimizer(Session& session, Optimizer& optimizer, const OptimizerCase& entry,
                                        int64_t steps);

}  // namespace optp

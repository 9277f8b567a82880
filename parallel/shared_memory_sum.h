// The arithmetic of collectives over shared memory.
#pragma once

#include <c10/core/ScalarType.h>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace optp {

/// Whether reduce_sources serves this type and reduction: float32, float64, bfloat16, float16, int32 and int64; sum,
/// maximum and minimum.
bool can_reduce(c10::ScalarType type, c10d::ReduceOp::RedOpType op);

/// out[i] = sources[0][i] op sources[1][i] op ..., in that order, `count` elements. Sums of bfloat16 and float16 are
/// taken in float32 and rounded once. `out` may be one of the sources. A NaN in any source gives a NaN.
void reduce_sources(std::byte* out, const std::vector<const std::byte*>& sources, int64_t count, c10::ScalarType type,
                    c10d::ReduceOp::RedOpType op);

}  // namespace optp

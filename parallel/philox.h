// Philox4x32-10, many blocks at a time: the counter-based generator behind parallel/random.h (Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace optp {

inline constexpr int64_t kPhiloxLanes = 4;  ///< numbers of a block

/// 16 blocks, one after another.
using PhiloxNumbers = std::array<uint32_t, 16 * kPhiloxLanes>;

/// The blocks of the 64-bit counters first_block, first_block + 1, ..; uses the processor's vector units if it knows
/// how.
void philox(uint64_t key, uint64_t first_block, PhiloxNumbers& numbers);

/// The same on any processor.
void philox_portable(uint64_t key, uint64_t first_block, PhiloxNumbers& numbers);

}  // namespace optp

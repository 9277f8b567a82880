// What the kernel counts of this process.
#pragma once

#include <cstdint>

namespace optp {

/// Largest resident memory of this process so far, mapped files included; 0 where the kernel does not say.
int64_t peak_resident_bytes();

}  // namespace optp

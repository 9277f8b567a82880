// What the kernel counts of this process's memory.
#pragma once

#include <cstdint>

namespace optp {

/// Largest resident memory of this process so far in bytes, mapped files included; 0 where the kernel does not say.
int64_t peak_resident_bytes();

/// Anonymous resident memory of this process in bytes (RssAnon: mapped files are not counted); 0 where the kernel does
/// not say.
int64_t anonymous_resident_bytes();

}  // namespace optp

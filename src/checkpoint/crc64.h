// CRC-64 as in xz (ECMA-182, reflected): finds every altered bit and every altered run of up to 64 bits for certain,
// anything else but once in 2^64 times. Parts of a file can be summed apart, by threads or ranks, and put together.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace optp {

/// The checksum of what came `before` (0: nothing) followed by `bytes`. About 6 GB/s a core where the processor
/// multiplies without carry (x86 with PCLMULQDQ), 1 GB/s elsewhere.
uint64_t crc64(std::string_view bytes, uint64_t before = 0);

/// The checksum of two parts one after the other; the second is `second_size` bytes long.
uint64_t combine_crc64(uint64_t first, uint64_t second, uint64_t second_size);

/// 16 hexadecimal digits.
std::string crc64_text(uint64_t checksum);

}  // namespace optp

// The checksum against the catalogue of CRCs (CRC-64/XZ), a bit-by-bit computation, and what it promises.
#include "src/checkpoint/crc64.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace optp {
namespace {

uint64_t one_bit_at_a_time(std::string_view bytes) {
  uint64_t state = ~uint64_t{0};
  for (const char byte : bytes) {
    state ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) state = state >> 1 ^ ((state & 1) != 0 ? 0xC96C5795D7870F42 : 0);
  }
  return ~state;
}

std::string random_bytes(size_t size) {
  std::mt19937_64 generator(size);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator());
  return bytes;
}

TEST(Crc64, HasTheCheckValueOfTheCatalogue) {
  EXPECT_EQ(crc64("123456789"), 0x995DC9BBDF1939FA);
  EXPECT_EQ(crc64(""), 0U);
  EXPECT_EQ(crc64_text(0x00C9BBDF1939FA), "0000c9bbdf1939fa");
}

TEST(Crc64, EqualsTheDefinitionAtEveryLength) {
  const std::string bytes = random_bytes(1100);
  for (size_t size = 0; size < 400; ++size) {
    for (const size_t start : {0, 1, 7}) {
      const std::string_view part = std::string_view(bytes).substr(start, size);
      ASSERT_EQ(crc64(part), one_bit_at_a_time(part)) << size << " from " << start;
    }
  }
  EXPECT_EQ(crc64(bytes), one_bit_at_a_time(bytes));
}

TEST(Crc64, PartsGoTogether) {
  const std::string bytes = random_bytes(5000);
  for (const size_t cut : {0, 1, 63, 128, 129, 2500, 4999, 5000}) {
    const std::string_view first = std::string_view(bytes).substr(0, cut);
    const std::string_view second = std::string_view(bytes).substr(cut);
    EXPECT_EQ(crc64(second, crc64(first)), crc64(bytes)) << cut;
    EXPECT_EQ(combine_crc64(crc64(first), crc64(second), second.size()), crc64(bytes)) << cut;
  }
}

TEST(Crc64, FindsEveryBit) {
  std::string bytes = random_bytes(300);
  const uint64_t good = crc64(bytes);
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(crc64(bytes), good) << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

}  // namespace
}  // namespace optp

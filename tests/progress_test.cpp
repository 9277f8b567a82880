// How amounts are written; what a terminal shows is in launched/tokenizers_test.py.
#include "src/progress.h"

#include <gtest/gtest.h>

namespace optp::testing {
namespace {

TEST(Progress, WritesDurationsInTwoUnits) {
  EXPECT_EQ(duration_text(0), "0 s");
  EXPECT_EQ(duration_text(58.3), "59 s");
  EXPECT_EQ(duration_text(185), "3 min 05 s");
  EXPECT_EQ(duration_text(3600), "1 h 00 min");
  EXPECT_EQ(duration_text(2 * 86400 + 5 * 3600), "2 d 5 h");
}

TEST(Progress, WritesBytesInPowersOfTen) {
  EXPECT_EQ(bytes_text(0), "0 bytes");
  EXPECT_EQ(bytes_text(999), "999 bytes");
  EXPECT_EQ(bytes_text(1000), "1.00 kB");
  EXPECT_EQ(bytes_text(999600), "1.00 MB");
  EXPECT_EQ(bytes_text(12345678), "12.3 MB");
  EXPECT_EQ(bytes_text(123456789012), "123 GB");
}

}  // namespace
}  // namespace optp::testing

// ShardLayout: ranges that cover a dimension without overlap, in whole blocks, evenly or nearly so.
#include "parallel/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/errors.h"

namespace optp {
namespace {

using testing::message_of;

std::vector<Range> ranges(const ShardLayout& layout) {
  std::vector<Range> result;
  for (int64_t part = 0; part < layout.parts(); ++part) result.push_back(layout.range(part));
  return result;
}

TEST(ShardLayout, CoversEveryDimensionOnceInWholeBlocks) {
  for (const int64_t block : {1, 2, 3, 64}) {
    for (int64_t blocks = 1; blocks <= 13; ++blocks) {
      for (int64_t parts = 1; parts <= blocks; ++parts) {
        SCOPED_TRACE(std::to_string(blocks) + " blocks of " + std::to_string(block) + " over " + std::to_string(parts));
        const ShardLayout layout(blocks * block, parts, block);
        EXPECT_EQ(layout.total(), blocks * block);
        EXPECT_EQ(layout.parts(), parts);
        int64_t next = 0;
        std::vector<int64_t> sizes;
        for (const Range& range : ranges(layout)) {
          EXPECT_EQ(range.start, next);
          EXPECT_GT(range.size, 0);
          EXPECT_EQ(range.size % block, 0);
          next = range.end();
          sizes.push_back(range.size);
        }
        EXPECT_EQ(next, blocks * block);
        const auto [smallest, largest] = std::minmax_element(sizes.begin(), sizes.end());
        EXPECT_LE(*largest - *smallest, block);
        EXPECT_EQ(layout.largest(), *largest);
        EXPECT_EQ(layout.even(), *largest == *smallest);
      }
    }
  }
}

TEST(ShardLayout, FirstPartsOwnTheExtraBlocks) {
  EXPECT_EQ(ranges(ShardLayout(7, 3)), (std::vector<Range>{{0, 3}, {3, 2}, {5, 2}}));
  EXPECT_EQ(ranges(ShardLayout(50257, 2)), (std::vector<Range>{{0, 25129}, {25129, 25128}}));
  EXPECT_EQ(ranges(ShardLayout(50272, 3)), (std::vector<Range>{{0, 16758}, {16758, 16757}, {33515, 16757}}));
  // The 12 heads of OPT-125M, 64 features each, on 5 ranks.
  EXPECT_EQ(ranges(ShardLayout(768, 5, 64)),
            (std::vector<Range>{{0, 192}, {192, 192}, {384, 128}, {512, 128}, {640, 128}}));
}

TEST(ShardLayout, DefaultIsOnePartThatOwnsEverything) {
  EXPECT_EQ(ranges(ShardLayout()), (std::vector<Range>{{0, 1}}));
  EXPECT_TRUE(ShardLayout().even());
}

TEST(ShardLayout, RangeContainsItsStartButNotItsEnd) {
  const Range range{3, 2};
  EXPECT_FALSE(range.contains(2));
  EXPECT_TRUE(range.contains(3));
  EXPECT_TRUE(range.contains(4));
  EXPECT_FALSE(range.contains(5));
  EXPECT_EQ(range.end(), 5);
}

TEST(ShardLayout, ErrorsNameTheValues) {
  const auto layout_error = [](int64_t total, int64_t parts, int64_t block) {
    return message_of<c10::ValueError>([=] { ShardLayout(total, parts, block); });
  };
  EXPECT_EQ(layout_error(10, 2, 4),
            "a dimension of 10 cannot be cut into blocks of 4: use a block size that divides it.");
  EXPECT_EQ(layout_error(10, 2, 0).find("a dimension of 10 cannot be cut into blocks of 0"), 0U);
  EXPECT_EQ(layout_error(0, 1, 1).find("a dimension of 0 cannot be cut"), 0U);
  EXPECT_EQ(layout_error(-8, 1, 4).find("a dimension of -8 cannot be cut"), 0U);
  EXPECT_EQ(layout_error(12, 5, 3), "a dimension of 12 in blocks of 3 cannot be shared by 5 ranks: use 1 to 4.");
  EXPECT_EQ(layout_error(12, 0, 3), "a dimension of 12 in blocks of 3 cannot be shared by 0 ranks: use 1 to 4.");
  EXPECT_EQ(layout_error(12, 4, 3), "no error");

  const ShardLayout layout(12, 3);
  const auto part_error = [&](int64_t part) { return message_of<c10::IndexError>([&] { layout.range(part); }); };
  EXPECT_EQ(part_error(3), "part 3 of 3 does not exist.");
  EXPECT_EQ(part_error(-1), "part -1 of 3 does not exist.");
  EXPECT_EQ(part_error(2), "no error");
}

}  // namespace
}  // namespace optp

// RandomKey and its streams: published answers, any part without the rest, and numbers that look normal.
#include "parallel/random.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>
#include <set>
#include <string>
#include <vector>

#include "parallel/philox.h"

namespace optp {
namespace {

using Block = std::array<uint32_t, 4>;

// Philox4x32-10 written down once more, from the paper.
Block philox(Block counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

std::vector<uint32_t> bits(const RandomKey& key, int64_t first, int64_t count) {
  std::vector<uint32_t> out(count);
  draw_bits(key, first, count, out.data());
  return out;
}

std::vector<float> normals(const RandomKey& key, int64_t first, int64_t count) {
  std::vector<float> out(count);
  draw_normal(key, first, count, out.data());
  return out;
}

// Numbers first .. first + count - 1 of `whole`.
template <typename T>
std::vector<T> slice_of(const std::vector<T>& whole, int64_t first, int64_t count) {
  return {whole.begin() + first, whole.begin() + first + count};
}

TEST(RandomKey, FollowsSplitMix64) {
  // The first numbers of the published generator (Vigna) for the seeds 0 and 1234567.
  EXPECT_EQ(RandomKey(0).value(), 0xe220a8397b1dcdafU);
  EXPECT_EQ(RandomKey(1234567).value(), 6457827717110365317U);
}

TEST(RandomKey, EveryPathIsAStreamOfItsOwn) {
  const RandomKey root(1);
  std::vector<uint64_t> values{RandomKey(0).value(),
                               root.value(),
                               RandomKey(2).value(),
                               root.with("").value(),
                               root.with("").with("").value(),
                               root.with(1).with(2).value(),
                               root.with(2).with(1).value(),
                               root.with("a").with(1).value(),
                               root.with(1).with("a").value(),
                               root.with("1").value(),
                               root.with(std::string("a\0", 2)).value(),
                               root.with("a").with("").value(),
                               root.with("weight").with(0).value()};
  for (int64_t index = -3; index < 20000; ++index) values.push_back(root.with(index).value());
  for (char c = 'a'; c <= 'z'; ++c) {
    for (char d = 'a'; d <= 'z'; ++d) {
      values.push_back(root.with(std::string{c, d}).value());
      values.push_back(root.with(std::string{c}).with(std::string{d}).value());
    }
    values.push_back(root.with(std::string{c}).value());
  }
  EXPECT_EQ(std::set(values.begin(), values.end()).size(), values.size());
}

TEST(RandomKey, BordersBetweenNamesCount) {
  const RandomKey root(1);
  EXPECT_NE(root.with("ab").with("c").value(), root.with("a").with("bc").value());
  EXPECT_NE(root.with("ab").with("c").value(), root.with("abc").value());
  EXPECT_EQ(root.with("ab").with("c").value(), root.with("ab").with("c").value());
}

TEST(RandomKey, DeriveLeavesTheParentAlone) {
  const RandomKey root(1);
  const uint64_t before = root.value();
  root.with("a").with(3);
  EXPECT_EQ(root.value(), before);
}

TEST(RandomBits, KnownAnswersOfRandom123) {
  // kat_vectors of the Random123 library: philox4x32, 10 rounds.
  EXPECT_EQ(philox({}, {}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  // The seed whose key is 0, so that the first of them is met from outside.
  const RandomKey zero(0 - uint64_t{0x9e3779b97f4a7c15});
  ASSERT_EQ(zero.value(), 0U);
  EXPECT_EQ(bits(zero, 0, 4), (std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

TEST(RandomBits, NumberIIsLaneIMod4OfBlockIDiv4) {
  for (const uint64_t seed : {0, 1, 99}) {
    const RandomKey key(seed);
    const std::array<uint32_t, 2> words{static_cast<uint32_t>(key.value()), static_cast<uint32_t>(key.value() >> 32)};
    // The last two lie past 2^34, where the counter needs its second word.
    for (const int64_t first : {int64_t{0}, int64_t{5}, int64_t{4096}, (int64_t{1} << 34) - 6, int64_t{1} << 40}) {
      const auto drawn = bits(key, first, 12);
      for (int64_t i = 0; i < 12; ++i) {
        const auto block = static_cast<uint64_t>((first + i) / 4);
        const Block expected = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0}, words);
        EXPECT_EQ(drawn[i], expected[(first + i) % 4]) << "number " << first + i;
      }
    }
  }
}

TEST(RandomBits, VectorUnitsGiveTheNumbersOfAnyProcessor) {
  for (const uint64_t key : {uint64_t{0}, uint64_t{0x0123456789abcdef}, ~uint64_t{0}}) {
    for (const uint64_t block : {uint64_t{0}, uint64_t{7}, (uint64_t{1} << 32) - 5, ~uint64_t{0} - 3}) {
      PhiloxNumbers fast, portable;
      optp::philox(key, block, fast);
      philox_portable(key, block, portable);
      EXPECT_EQ(fast, portable) << key << ", " << block;
    }
  }
}

TEST(RandomStreams, AnyPartEqualsThatPartOfTheWhole) {
  const RandomKey key = RandomKey(3).with("part");
  const auto whole_bits = bits(key, 0, 210);
  const auto whole_normals = normals(key, 0, 210);
  for (int64_t first = 0; first < 70; ++first) {
    for (int64_t count = 0; count <= 140; ++count) {
      ASSERT_EQ(bits(key, first, count), slice_of(whole_bits, first, count)) << first << ", " << count;
      ASSERT_EQ(normals(key, first, count), slice_of(whole_normals, first, count)) << first << ", " << count;
    }
  }
}

TEST(RandomStreams, DrawingWritesNothingOutsideTheRange) {
  for (int64_t first = 0; first < 8; ++first) {
    std::vector<float> out(11, 7.0F);
    draw_normal(RandomKey(1), first, 5, out.data() + 3);
    for (const size_t i : {0, 1, 2, 8, 9, 10}) EXPECT_EQ(out[i], 7.0F);
    std::vector<uint32_t> words(11, 7);
    draw_bits(RandomKey(1), first, 5, words.data() + 3);
    for (const size_t i : {0, 1, 2, 8, 9, 10}) EXPECT_EQ(words[i], 7U);
  }
}

TEST(RandomBits, EveryBitIsSetInHalfOfTheNumbers) {
  constexpr int64_t kCount = 1 << 20;
  std::array<int64_t, 32> set{};
  for (const uint32_t number : bits(RandomKey(4), 0, kCount)) {
    for (int bit = 0; bit < 32; ++bit) set[bit] += number >> bit & 1;
  }
  // Standard deviation sqrt(n) / 2 = 512.
  for (int bit = 0; bit < 32; ++bit) EXPECT_NEAR(set[bit], kCount / 2.0, 5 * 512) << "bit " << bit;
}

TEST(RandomNormals, FollowFromTheBitsByBoxMuller) {
  const RandomKey key(5);
  const auto uniform = bits(key, 0, 4096);
  const auto drawn = normals(key, 0, 4096);
  for (size_t i = 0; i < drawn.size(); i += 2) {
    const double radius = std::sqrt(-2 * std::log(((uniform[i] >> 8) + 1.0) * 0x1p-24));
    const double angle = 2 * std::numbers::pi * (uniform[i + 1] >> 8) * 0x1p-24;
    ASSERT_NEAR(drawn[i], radius * std::cos(angle), 1e-5) << i;
    ASSERT_NEAR(drawn[i + 1], radius * std::sin(angle), 1e-5) << i;
  }
}

// With n = 2^20 numbers the standard errors of the moments are sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n); the limits
// are 5 of them.
TEST(RandomNormals, HaveTheMomentsOfTheNormalDistribution) {
  constexpr int64_t kCount = 1 << 20;
  for (const uint64_t seed : {0, 1, 2}) {
    const auto numbers = normals(RandomKey(seed).with("moments"), 0, kCount);
    const at::Tensor z = at::from_blob(const_cast<float*>(numbers.data()), {kCount}, at::kFloat).to(at::kDouble);
    const auto mean_of = [](const at::Tensor& tensor) { return tensor.mean().item<double>(); };
    EXPECT_NEAR(mean_of(z), 0, 5 * std::sqrt(1.0 / kCount));
    EXPECT_NEAR(mean_of(z.pow(2)), 1, 5 * std::sqrt(2.0 / kCount));
    EXPECT_NEAR(mean_of(z.pow(3)), 0, 5 * std::sqrt(15.0 / kCount));
    EXPECT_NEAR(mean_of(z.pow(4)), 3, 5 * std::sqrt(96.0 / kCount));
    EXPECT_LT(z.abs().max().item<double>(), 5.8);  // sqrt(-2 ln 2^-24)
    // Shares beyond 1, 2 and 3 standard deviations.
    for (const double limit : {1.0, 2.0, 3.0}) {
      const double share = std::erfc(limit / std::numbers::sqrt2);
      EXPECT_NEAR(mean_of(z.abs().gt(limit).to(at::kDouble)), share, 5 * std::sqrt(share * (1 - share) / kCount));
    }
    // Neighbours, the two of a pair, blocks, and another stream are uncorrelated.
    for (const int64_t lag : {1, 2, 3, 4}) {
      EXPECT_NEAR(mean_of(z.slice(0, lag) * z.slice(0, 0, kCount - lag)), 0, 5 * std::sqrt(1.0 / kCount)) << lag;
    }
    const auto others = normals(RandomKey(seed).with("other"), 0, kCount);
    const at::Tensor other = at::from_blob(const_cast<float*>(others.data()), {kCount}, at::kFloat).to(at::kDouble);
    EXPECT_NEAR(mean_of(z * other), 0, 5 * std::sqrt(1.0 / kCount));
  }
}

}  // namespace
}  // namespace optp

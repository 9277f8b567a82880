// Windows, their order, the split, and the hash that notices changed data.
#include "src/data/token_dataset.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "src/data/shuffle.h"
#include "src/data/token_writer.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"
#include "tests/support/tensors.h"

namespace optp::testing {
namespace {

// Ids first, first + 1, ...
std::shared_ptr<const TokenFile> counting_file(const std::filesystem::path& path, int64_t first, int64_t count) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  TokenWriter writer(path, 1000);
  writer.write(ids);
  writer.commit();
  return std::make_shared<const TokenFile>(path);
}

std::vector<int64_t> first_ids(const at::Tensor& sequences) {
  const at::Tensor column = sequences.select(1, 0).contiguous();
  return {column.const_data_ptr<int64_t>(), column.const_data_ptr<int64_t>() + column.numel()};
}

TEST(TokenDataset, CutsWindowsThatShareOneToken) {
  const TemporaryFolder folder;
  const auto ten = counting_file(folder / "ten.npy", 0, 10);
  const TokenDataset data({ten}, {.seq_len = 3, .shuffle = false});
  EXPECT_EQ(data.sequences(), 3);
  EXPECT_TRUE(same(data.sequences(0, 0, 3), at::tensor({0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9}, at::kLong).view({3, 4})));
  EXPECT_TRUE(same(data.sequences(5, 1, 1), at::tensor({3, 4, 5, 6}, at::kLong).view({1, 4})));
  EXPECT_EQ(TokenDataset({ten}, {.seq_len = 4}).sequences(), 2);  // 9 is left out
  EXPECT_EQ(TokenDataset({ten}, {.seq_len = 9}).sequences(), 1);
}

TEST(TokenDataset, NoWindowCrossesFromOneFileToTheNext) {
  const TemporaryFolder folder;
  const TokenDataset data(
      {counting_file(folder / "a", 0, 6), counting_file(folder / "b", 100, 3), counting_file(folder / "c", 200, 7)},
      {.seq_len = 2, .shuffle = false});
  EXPECT_EQ(first_ids(data.sequences(0, 0, data.sequences())), (std::vector<int64_t>{0, 2, 100, 200, 202, 204}));
  const at::Tensor all = data.sequences(0, 0, 6);
  EXPECT_TRUE(all.slice(1, 1).sub(all.slice(1, 0, 2)).eq(1).all().item<bool>());
}

TEST(TokenDataset, DrawsEveryWindowOnceAnEpochInAnOrderOfItsOwn) {
  const TemporaryFolder folder;
  const TokenDataset data({counting_file(folder / "a", 0, 301)}, {.seq_len = 3, .seed = 7});
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<int64_t> order = first_ids(data.sequences(epoch, 0, 100));
    orders.insert(order);
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], 3 * i);
  }
  const TokenDataset other({counting_file(folder / "a", 0, 301)}, {.seq_len = 3, .seed = 8});
  orders.insert(first_ids(other.sequences(0, 0, 100)));
  EXPECT_EQ(orders.size(), 5);
}

TEST(TokenDataset, TheOrderDoesNotDependOnHowItIsRead) {
  const TemporaryFolder folder;
  const TokenDataset data({counting_file(folder / "a", 0, 301)}, {.seq_len = 3, .seed = 7});
  const at::Tensor whole = data.sequences(2, 0, 100);
  for (const int64_t size : {1, 3, 7, 50}) {
    for (int64_t first = 0; first + size <= 100; first += size) {
      EXPECT_TRUE(same(data.sequences(2, first, size), whole.slice(0, first, first + size)));
    }
  }
  // Recorded: another order would break resumed runs.
  EXPECT_EQ(first_ids(data.sequences(0, 0, 6)), (std::vector<int64_t>{135, 15, 30, 141, 66, 147}));
}

TEST(TokenDataset, RefusesWhatIsNotThere) {
  const TemporaryFolder folder;
  const auto file = counting_file(folder / "a.npy", 0, 10);
  const TokenDataset data({file}, {.seq_len = 3});
  for (const auto& [epoch, first, count] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {0, 0, 4}, {0, 3, 1}, {0, -1, 1}, {-1, 0, 1}, {0, 0, -1}, {0, 1, INT64_MAX}}) {
    EXPECT_THROW(data.sequences(epoch, first, count), c10::IndexError);
  }
  EXPECT_EQ(data.sequences(0, 3, 0).sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_NE(message_of<c10::ValueError>([&] {
              TokenDataset({file}, {.seq_len = 10});
            }).find("a.npy has 10 tokens, but a window of seq-len 10 takes 11"),
            std::string::npos);
  EXPECT_THROW(TokenDataset({counting_file(folder / "b", 0, 0)}, {.seq_len = 1}), c10::ValueError);
  EXPECT_THROW(TokenDataset({file}, {.seq_len = 0}), c10::ValueError);
  EXPECT_THROW(TokenDataset({}, {.seq_len = 1}), c10::ValueError);
  data.check_vocabulary(10);
  EXPECT_NE(message_of<c10::ValueError>([&] {
              data.check_vocabulary(9);
            }).find("a.npy holds the id 9, outside the model's vocabulary of 9"),
            std::string::npos);
}

TEST(TokenDataset, SplitsTheLastWindowsOff) {
  const TemporaryFolder folder;
  const TokenDataset data({counting_file(folder / "a", 0, 21), counting_file(folder / "b", 100, 21)}, {.seq_len = 2});
  const auto [training, validation] = data.split(0.2);
  EXPECT_EQ(training.sequences(), 16);
  EXPECT_EQ(first_ids(validation.sequences(3, 0, 4)), (std::vector<int64_t>{112, 114, 116, 118}));
  std::vector<int64_t> trained = first_ids(training.sequences(0, 0, 16));
  EXPECT_FALSE(std::is_sorted(trained.begin(), trained.end()));
  std::sort(trained.begin(), trained.end());
  EXPECT_EQ(trained.back(), 110);
  EXPECT_EQ(data.split(0.001).second.sequences(), 1);
  EXPECT_EQ(data.split(0.999).first.sequences(), 1);
  for (const double fraction : {0.0, 1.0, -0.5, std::nan("")}) EXPECT_THROW(data.split(fraction), c10::ValueError);
  EXPECT_THROW(validation.split(0.2).second.split(0.5), c10::ValueError);
}

TEST(TokenDataset, TheFingerprintNoticesEveryChange) {
  const TemporaryFolder folder;
  const auto fingerprint_of = [&](int64_t first, int64_t count, int64_t seq_len) {
    return TokenDataset({counting_file(folder / "a", first, count), counting_file(folder / "b", 50, 9)},
                        {.seq_len = seq_len})
        .fingerprint();
  };
  const std::string reference = fingerprint_of(0, 100, 4);
  EXPECT_EQ(fingerprint_of(0, 100, 4), reference);
  EXPECT_EQ(reference.size(), 16);
  std::set<std::string> all{reference, fingerprint_of(1, 100, 4), fingerprint_of(0, 101, 4), fingerprint_of(0, 100, 5)};
  const auto a = counting_file(folder / "a", 0, 100);
  const auto b = counting_file(folder / "b", 50, 9);
  all.insert(TokenDataset({b, a}, {.seq_len = 4}).fingerprint());
  const auto [training, validation] = TokenDataset({a, b}, {.seq_len = 4}).split(0.1);
  all.insert({training.fingerprint(), validation.fingerprint()});
  EXPECT_EQ(all.size(), 7);
  EXPECT_EQ(TokenDataset({a, b}, {.seq_len = 4, .shuffle = false, .seed = 3}).fingerprint(), reference);
}

TEST(Shuffle, IsAPermutationOfAnySize) {
  for (const int64_t size : {1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1000, 4097}) {
    const Shuffle shuffle(RandomKey(1), size);
    std::vector<bool> seen(static_cast<size_t>(size), false);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t element = shuffle[i];
      ASSERT_TRUE(element >= 0 && element < size);
      EXPECT_FALSE(seen[static_cast<size_t>(element)]);
      seen[static_cast<size_t>(element)] = true;
    }
  }
  const int64_t huge = (int64_t{1} << 40) + 1;
  const Shuffle shuffle(RandomKey(1), huge);
  for (const int64_t i : {int64_t{0}, huge / 2, huge - 1}) EXPECT_TRUE(shuffle[i] >= 0 && shuffle[i] < huge);
}

// Each element lands at each place as often as at any other: chi squared over 10,000 keys, 99.99 % of a fair one's
// values are below 153 for 9 x 9 degrees of freedom; likewise for pairs of neighbours.
TEST(Shuffle, FavoursNoOrder) {
  constexpr int64_t kSize = 10;
  constexpr int64_t kKeys = 10'000;
  std::array<std::array<double, kSize>, kSize> places{}, followers{};
  for (int64_t key = 0; key < kKeys; ++key) {
    const Shuffle shuffle(RandomKey(0).with(key), kSize);
    for (int64_t i = 0; i < kSize; ++i) {
      ++places[static_cast<size_t>(i)][static_cast<size_t>(shuffle[i])];
      if (i > 0) ++followers[static_cast<size_t>(shuffle[i - 1])][static_cast<size_t>(shuffle[i])];
    }
  }
  double place_statistic = 0;
  double follower_statistic = 0;
  for (size_t a = 0; a < kSize; ++a) {
    for (size_t b = 0; b < kSize; ++b) {
      const double expected = static_cast<double>(kKeys) / kSize;
      place_statistic += (places[a][b] - expected) * (places[a][b] - expected) / expected;
      if (a != b) follower_statistic += (followers[a][b] - expected) * (followers[a][b] - expected) / expected;
    }
  }
  EXPECT_LT(place_statistic, 140);
  EXPECT_LT(follower_statistic, 150);
}

}  // namespace
}  // namespace optp::testing

#include "src/train/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

template <typename T>
T number_at(const std::string& text, size_t position) {
  T value{};
  std::memcpy(&value, text.data() + position, sizeof(value));
  return value;
}

// The events of a file, its framing checked. TensorBoard itself reads such files in the launched tests.
std::vector<std::string> read_events(const std::filesystem::path& path) {
  const std::string file = read_file(path);
  const auto masked = [](const std::string& data) {
    const uint32_t crc = crc32c(data);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
  };
  std::vector<std::string> events;
  for (size_t at = 0; at < file.size();) {
    const auto length = number_at<uint64_t>(file, at);
    EXPECT_EQ(number_at<uint32_t>(file, at + 8), masked(file.substr(at, 8)));
    events.push_back(file.substr(at + 12, length));
    EXPECT_EQ(number_at<uint32_t>(file, at + 12 + length), masked(events.back()));
    at += 16 + length;
  }
  return events;
}

TEST(TensorBoard, ChecksumsAreThoseOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);
}

TEST(TensorBoard, EventsAreFramedAndHoldTheirFields) {
  const TemporaryFolder folder;
  {
    TensorBoardWriter writer(folder.path(), 1);
    writer.add_scalars(300, {{"train/loss", 1.5}});
    TensorBoardWriter resumed(folder.path(), 301);
  }
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(folder.path()),
                                           std::filesystem::directory_iterator{});
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 2U);
  const std::vector<std::string> events = read_events(files[0]);
  ASSERT_EQ(events.size(), 3U);
  // Key 1 as a double, then key 2 as a varint: each event knows its time and step.
  EXPECT_EQ(events[0].substr(11), std::string("\x1a\x0d") + "brain.Event:2");
  EXPECT_EQ(events[1].substr(9), std::string("\x10\x01\x3a\x02\x08\x01"));
  const std::string value = std::string("\x0a\x0atrain/loss\x15") + std::string("\0\0\xc0\x3f", 4);
  EXPECT_EQ(events[2].substr(9), "\x10\xac\x02\x2a\x13\x0a\x11" + value);
  EXPECT_EQ(read_events(files[1])[1].substr(9), std::string("\x10\xad\x02\x3a\x02\x08\x01"));
}

}  // namespace
}  // namespace optp::testing

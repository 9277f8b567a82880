#include "src/train/tensorboard.h"

#include <c10/util/Exception.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <sstream>
#include <system_error>

namespace optp {
namespace {

static_assert(std::endian::native == std::endian::little, "event files are little-endian");

// Field numbers of event.proto and summary.proto.
enum EventField : uint32_t { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7 };
enum SummaryField : uint32_t { kValue = 1 };
enum ValueField : uint32_t { kTag = 1, kSimpleValue = 2 };
enum SessionLogField : uint32_t { kStatus = 1 };
constexpr uint64_t kSessionStart = 1;

template <typename T>
void put_fixed(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

// A field's key: its number and how it is encoded.
void put_key(std::string& out, uint32_t field, uint32_t wire_type) { put_varint(out, field << 3 | wire_type); }

void put_integer(std::string& out, uint32_t field, uint64_t value) {
  put_key(out, field, 0);
  put_varint(out, value);
}

void put_double(std::string& out, uint32_t field, double value) {
  put_key(out, field, 1);
  put_fixed(out, value);
}

void put_float(std::string& out, uint32_t field, float value) {
  put_key(out, field, 5);
  put_fixed(out, value);
}

void put_bytes(std::string& out, uint32_t field, std::string_view value) {
  put_key(out, field, 2);
  put_varint(out, value.size());
  out += value;
}

std::string event_at(int64_t step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  put_double(event, kWallTime, now.count());
  put_integer(event, kStep, static_cast<uint64_t>(step));
  return event;
}

// The checksum of a TFRecord is "masked", so that a checksum of data that holds checksums stays a good one.
uint32_t masked_crc(std::string_view data) { return std::rotr(crc32c(data), 15) + 0xa282ead8U; }

// TensorBoard reads the files of a folder in the order of their names.
std::filesystem::path new_event_file(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  TORCH_CHECK_VALUE(!error, "cannot make the folder ", folder.string(), ": ", error.message(), ".");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  for (int64_t second = std::chrono::duration_cast<std::chrono::seconds>(now).count();; ++second) {
    std::ostringstream name;
    name << "events.out.tfevents." << std::setw(10) << std::setfill('0') << second << ".optp";
    if (!std::filesystem::exists(folder / name.str())) return folder / name.str();
  }
}

}  // namespace

uint32_t crc32c(std::string_view data) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> entries{};
    for (uint32_t i = 0; i < 256; ++i) {
      entries[i] = i;
      for (int bit = 0; bit < 8; ++bit) entries[i] = entries[i] >> 1 ^ (entries[i] & 1 ? 0x82f63b78U : 0);
    }
    return entries;
  }();
  uint32_t crc = ~0U;
  for (const char c : data) crc = crc >> 8 ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step)
    : file_(new_event_file(folder)) {
  std::string version = event_at(0);
  put_bytes(version, kFileVersion, "brain.Event:2");
  write(version);

  std::string session;
  put_integer(session, kStatus, kSessionStart);
  std::string start = event_at(first_step);
  put_bytes(start, kSessionLog, session);
  write(start);
}

void TensorBoardWriter::add_scalars(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    put_bytes(value, kTag, tag);
    put_float(value, kSimpleValue, static_cast<float>(number));
    put_bytes(summary, kValue, value);
  }
  std::string event = event_at(step);
  put_bytes(event, kSummary, summary);
  write(event);
}

void TensorBoardWriter::write(const std::string& event) {
  std::string record;
  put_fixed(record, static_cast<uint64_t>(event.size()));
  put_fixed(record, masked_crc(record));
  record += event;
  put_fixed(record, masked_crc(event));
  file_.append(record);
}

}  // namespace optp

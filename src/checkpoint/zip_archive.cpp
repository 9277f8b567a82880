#include "src/checkpoint/zip_archive.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <cstdint>
#include <cstring>
#include <limits>

#include "src/checkpoint/safetensors_header.h"

namespace optp {
namespace {

// APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.
constexpr std::string_view kLocalHeader = "PK\x03\x04";
constexpr std::string_view kCentralEntry = "PK\x01\x02";
constexpr std::string_view kEnd = "PK\x05\x06";
constexpr std::string_view kZip64End = "PK\x06\x06";
constexpr std::string_view kZip64Locator = "PK\x06\x07";
constexpr size_t kLocalHeaderSize = 30;
constexpr size_t kCentralEntrySize = 46;
constexpr size_t kEndSize = 22;
constexpr size_t kZip64EndSize = 56;
constexpr size_t kZip64LocatorSize = 20;
constexpr uint16_t kZip64Extra = 1;
constexpr uint16_t kEncrypted = 1;
constexpr uint64_t kIn64Bits = 0xFFFFFFFF;  // in a field of 32 bits: see the field of 64

template <typename... Parts>
[[noreturn]] void refuse_zip(const std::string& file, const Parts&... parts) {
  C10_THROW_ERROR(ValueError, c10::str("cannot read ", file, ": ", parts..., "."));
}

// A little-endian number at `position`, which must lie within `bytes`.
template <typename Number>
Number number_at(std::string_view bytes, size_t position) {
  Number number = 0;
  std::memcpy(&number, bytes.data() + position, sizeof(number));
  return number;
}

// Whether [start, start + size) lies in the first `limit` bytes.
bool within(uint64_t start, uint64_t size, uint64_t limit) { return start <= limit && size <= limit - start; }

struct CentralDirectory {
  uint64_t start = 0;
  uint64_t size = 0;
  uint64_t entries = 0;
};

// The record at the archive's end, before a comment of at most 65535 bytes.
size_t find_end_record(std::string_view bytes, const std::string& file) {
  constexpr size_t kLongestComment = 0xFFFF;
  for (size_t comment = 0; comment <= kLongestComment && kEndSize + comment <= bytes.size(); ++comment) {
    const size_t position = bytes.size() - kEndSize - comment;
    if (bytes.substr(position).starts_with(kEnd) && number_at<uint16_t>(bytes, position + 20) == comment) {
      return position;
    }
  }
  refuse_zip(file, "it begins like a zip archive, but its end is missing (is the file truncated?)");
}

CentralDirectory find_central_directory(std::string_view bytes, const std::string& file) {
  const size_t end = find_end_record(bytes, file);
  CentralDirectory directory{.start = number_at<uint32_t>(bytes, end + 16),
                             .size = number_at<uint32_t>(bytes, end + 12),
                             .entries = number_at<uint16_t>(bytes, end + 10)};
  size_t limit = end;
  if (end >= kZip64LocatorSize && bytes.substr(end - kZip64LocatorSize).starts_with(kZip64Locator)) {
    const auto position = number_at<uint64_t>(bytes, end - kZip64LocatorSize + 8);
    if (!within(position, kZip64EndSize, end - kZip64LocatorSize) || !bytes.substr(position).starts_with(kZip64End)) {
      refuse_zip(file, "its zip64 end record is not at byte ", position, ", where the archive says");
    }
    directory = {.start = number_at<uint64_t>(bytes, position + 48),
                 .size = number_at<uint64_t>(bytes, position + 40),
                 .entries = number_at<uint64_t>(bytes, position + 32)};
    limit = position;
  }
  if (!within(directory.start, directory.size, limit)) {
    refuse_zip(file, "its zip directory of ", directory.size, " bytes at byte ", directory.start,
               " is outside the archive (is the file truncated?)");
  }
  return directory;
}

struct ZipEntry {
  std::string_view name;
  uint16_t flags = 0;
  uint16_t method = 0;
  uint64_t stored_size = 0;
  uint64_t size = 0;
  uint64_t local_header = 0;
};

// Replaces the fields that say so by those of 64 bits in `extra`.
void read_zip64_extra(std::string_view extra, ZipEntry& entry, const std::string& file) {
  size_t position = 0;
  while (within(position, 4, extra.size())) {
    const auto id = number_at<uint16_t>(extra, position);
    const auto size = number_at<uint16_t>(extra, position + 2);
    position += 4;
    if (!within(position, size, extra.size())) break;
    if (id == kZip64Extra) {
      const std::string_view field = extra.substr(position, size);
      size_t next = 0;
      for (uint64_t* value : {&entry.size, &entry.stored_size, &entry.local_header}) {
        if (*value != kIn64Bits) continue;
        if (!within(next, sizeof(uint64_t), field.size())) {
          refuse_zip(file, "its entry ", shown_name(entry.name), " lacks its zip64 sizes");
        }
        *value = number_at<uint64_t>(field, next);
        next += sizeof(uint64_t);
      }
      return;
    }
    position += size;
  }
  if (entry.size == kIn64Bits || entry.stored_size == kIn64Bits || entry.local_header == kIn64Bits) {
    refuse_zip(file, "its entry ", shown_name(entry.name), " lacks its zip64 sizes");
  }
}

std::string_view bytes_of_entry(std::string_view bytes, const ZipEntry& entry, uint64_t limit,
                                const std::string& file) {
  if (!within(entry.local_header, kLocalHeaderSize, limit) ||
      !bytes.substr(entry.local_header).starts_with(kLocalHeader)) {
    refuse_zip(file, "its entry ", shown_name(entry.name), " is not at byte ", entry.local_header,
               ", where the archive says");
  }
  const uint64_t start = entry.local_header + kLocalHeaderSize + number_at<uint16_t>(bytes, entry.local_header + 26) +
                         number_at<uint16_t>(bytes, entry.local_header + 28);
  if (!within(start, entry.stored_size, limit)) {
    refuse_zip(file, "its entry ", shown_name(entry.name), " of ", entry.stored_size, " bytes at byte ", start,
               " goes beyond the archive's content");
  }
  return bytes.substr(start, entry.stored_size);
}

}  // namespace

bool is_zip(std::string_view bytes) { return bytes.starts_with(kLocalHeader); }

ZipArchive::ZipArchive(std::string_view bytes, const std::string& file) : file_(file) {
  const CentralDirectory directory = find_central_directory(bytes, file);
  const std::string_view entries = bytes.substr(directory.start, directory.size);
  size_t position = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (!within(position, kCentralEntrySize, entries.size()) || !entries.substr(position).starts_with(kCentralEntry)) {
      refuse_zip(file, "its zip directory has ", i, " of ", directory.entries, " entries");
    }
    const auto name_size = number_at<uint16_t>(entries, position + 28);
    const auto extra_size = number_at<uint16_t>(entries, position + 30);
    const auto comment_size = number_at<uint16_t>(entries, position + 32);
    ZipEntry entry{.name = {},
                   .flags = number_at<uint16_t>(entries, position + 8),
                   .method = number_at<uint16_t>(entries, position + 10),
                   .stored_size = number_at<uint32_t>(entries, position + 20),
                   .size = number_at<uint32_t>(entries, position + 24),
                   .local_header = number_at<uint32_t>(entries, position + 42)};
    position += kCentralEntrySize;
    if (!within(position, size_t{name_size} + extra_size + comment_size, entries.size())) {
      refuse_zip(file, "its zip directory ends inside entry ", i, " of ", directory.entries);
    }
    entry.name = entries.substr(position, name_size);
    read_zip64_extra(entries.substr(position + name_size, extra_size), entry, file);
    position += size_t{name_size} + extra_size + comment_size;
    const bool is_new = contents_
                            .try_emplace(std::string(entry.name),
                                         Content{.compressed = entry.method != 0 || entry.stored_size != entry.size,
                                                 .encrypted = (entry.flags & kEncrypted) != 0,
                                                 .bytes = bytes_of_entry(bytes, entry, directory.start, file)})
                            .second;
    if (!is_new) refuse_zip(file, "it has the entry ", shown_name(entry.name), " twice");
  }
}

std::vector<std::string> ZipArchive::names() const {
  std::vector<std::string> names;
  for (const auto& [name, content] : contents_) names.push_back(name);
  return names;
}

std::string_view ZipArchive::content(const std::string& name) const {
  const auto found = contents_.find(name);
  if (found == contents_.end()) refuse_zip(file_, "it has no entry ", shown_name(name));
  if (found->second.encrypted) refuse_zip(file_, "its entry ", shown_name(name), " is encrypted");
  if (found->second.compressed) {
    refuse_zip(file_, "its entry ", shown_name(name),
               " is compressed, which torch.save never does; pack the file again without compression");
  }
  return found->second.bytes;
}

}  // namespace optp

// torch.save's files put together by hand: a pickle instruction by instruction, and a zip archive around it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace optp {

inline std::string little_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i, value >>= 8) text += static_cast<char>(value & 0xFF);
  return text;
}

using ZipEntries = std::vector<std::pair<std::string, std::string>>;

/// What may be wrong with an archive, or unusual.
struct ZipStyle {
  uint16_t method = 0;
  uint16_t flags = 0x0808;
  int64_t size_change = 0;  ///< added to the size in the central directory
  bool zip64 = false;       ///< sizes, offsets and the end record in 64 bits
  bool zip64_extra = true;  ///< false: the fields of 64 bits are left out all the same
  size_t misalignment = 0;  ///< of every content, which torch.save puts at multiples of 64
  std::string comment;
};

/// An archive of files that are stored as they are, and no checksums. The local headers carry no sizes.
inline std::string zip_bytes(const ZipEntries& entries, const ZipStyle& style = {}) {
  std::string bytes, directory;
  for (const auto& [name, content] : entries) {
    const uint64_t start = bytes.size();
    const size_t padding = 64 - (start + 30 + name.size()) % 64 + style.misalignment;
    bytes += "PK\x03\x04" + little_endian(0, 2) + little_endian(style.flags, 2) + little_endian(style.method, 2) +
             little_endian(0, 16) + little_endian(name.size(), 2) + little_endian(padding, 2) + name +
             std::string(padding, 'p') + content;
    const uint64_t size = content.size() + style.size_change;
    std::string extra;
    if (style.zip64 && style.zip64_extra) {
      extra = "\x99\x99" + little_endian(2, 2) + "??" + little_endian(1, 2) + little_endian(24, 2) +
              little_endian(size, 8) + little_endian(size, 8) + little_endian(start, 8);
    }
    const auto field = [&](uint64_t value) { return little_endian(style.zip64 ? 0xFFFFFFFF : value, 4); };
    directory += "PK\x01\x02" + little_endian(0, 4) + little_endian(style.flags, 2) + little_endian(style.method, 2) +
                 little_endian(0, 8) + field(size) + field(size) + little_endian(name.size(), 2) +
                 little_endian(extra.size(), 2) + little_endian(0, 10) + field(start) + name + extra;
  }
  const uint64_t start = bytes.size();
  bytes += directory;
  if (style.zip64) {
    const uint64_t end = bytes.size();
    bytes += "PK\x06\x06" + little_endian(44, 8) + little_endian(0, 12) + little_endian(entries.size(), 8) +
             little_endian(entries.size(), 8) + little_endian(directory.size(), 8) + little_endian(start, 8);
    bytes += "PK\x06\x07" + little_endian(0, 4) + little_endian(end, 8) + little_endian(1, 4);
  }
  const uint64_t count = style.zip64 ? 0xFFFF : entries.size();
  return bytes + "PK\x05\x06" + little_endian(0, 4) + little_endian(count, 2) + little_endian(count, 2) +
         little_endian(style.zip64 ? 0xFFFFFFFF : directory.size(), 4) +
         little_endian(style.zip64 ? 0xFFFFFFFF : start, 4) + little_endian(style.comment.size(), 2) + style.comment;
}

namespace pickled {

inline std::string text(const std::string& value) { return "X" + little_endian(value.size(), 4) + value; }
inline std::string integer(int64_t value) { return "\x8a\x08" + little_endian(value, 8); }
inline std::string tuple(const std::vector<std::string>& items) {
  std::string all = "(";
  for (const std::string& item : items) all += item;
  return all + "t";
}
inline std::string integers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(integer(value));
  return tuple(items);
}
/// A global by its name, then a call of it.
inline std::string function(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string call(const std::string& callee, const std::vector<std::string>& arguments) {
  return callee + tuple(arguments) + "R";
}
inline std::string storage(int64_t size, const std::string& type = "FloatStorage", const std::string& key = "0") {
  return tuple({text("storage"), function("torch", type), text(key), text("cpu"), integer(size)}) + "Q";
}
inline std::string ordered_dict() { return function("collections", "OrderedDict") + ")R"; }
inline std::string tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& strides) {
  return call(function("torch._utils", "_rebuild_tensor_v2"),
              {storage, integer(offset), integers(shape), integers(strides), "\x89", ordered_dict()});
}
/// A whole pickle of a dict: keys and values in turn.
inline std::string state_dict(const std::vector<std::string>& items) {
  std::string all = "\x80\x02}(";
  for (const std::string& item : items) all += item;
  return all + "u.";
}

}  // namespace pickled

}  // namespace optp

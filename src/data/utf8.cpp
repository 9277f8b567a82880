#include "src/data/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace optp {

// Unicode 15, table 3-7: the first byte gives the length and what the second may be; later ones are 80..BF.
Utf8Unit first_utf8_unit(std::string_view text) {
  using enum Utf8Unit::Kind;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {kCharacter, 1};
  const size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (first < 0xC2 || first > 0xF4) return {kInvalid, 1};
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (first == 0xE0) low = 0xA0;   // overlong below
  if (first == 0xED) high = 0x9F;  // surrogates above
  if (first == 0xF0) low = 0x90;   // overlong below
  if (first == 0xF4) high = 0x8F;  // beyond U+10FFFF above
  for (size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {kCharacter, size};
}

size_t valid_utf8_size(std::string_view text) {
  size_t valid = 0;
  while (valid < text.size()) {
    // ASCII eight bytes at a time, which most text is.
    uint64_t word = 0;
    if (text.size() - valid >= sizeof(word)) {
      std::memcpy(&word, text.data() + valid, sizeof(word));
      if ((word & 0x8080808080808080) == 0) {
        valid += sizeof(word);
        continue;
      }
    }
    const Utf8Unit unit = first_utf8_unit(text.substr(valid));
    if (unit.kind != Utf8Unit::Kind::kCharacter) break;
    valid += unit.size;
  }
  return valid;
}

size_t incomplete_utf8_size(std::string_view text) {
  for (size_t size = std::min<size_t>(3, text.size()); size > 0; --size) {
    const Utf8Unit unit = first_utf8_unit(text.substr(text.size() - size));
    if (unit.kind == Utf8Unit::Kind::kIncomplete && unit.size == size) return size;
  }
  return 0;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = valid_utf8_size(text);
    result.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) break;
    result.append("\xEF\xBF\xBD");
    text.remove_prefix(first_utf8_unit(text).size);
  }
  return result;
}

}  // namespace optp

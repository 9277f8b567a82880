// UTF-8, right or wrong: what the text begins and ends with, how it is repaired and given out piece by piece, against a
// decoder of another make.
#include <algorithm>
#include <vector>

#include "src/data/detokenizer.h"
#include "src/data/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

using Kind = Utf8Unit::Kind;

enum class Beginning { kNone, kPart, kWhole };

// What of a character's encoding these bytes are, judged by the range of the code points that they leave.
Beginning beginning_of(std::string_view bytes) {
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};  // code point by length
  const auto first = static_cast<unsigned char>(bytes[0]);
  const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
  if (bytes.size() > length) return Beginning::kNone;
  uint32_t low = length == 1 ? first : first & (0x7F >> length);
  uint32_t high = low;
  for (size_t i = 1; i < length; ++i) {
    const bool given = i < bytes.size();
    if (given && static_cast<unsigned char>(bytes[i]) >> 6 != 2) return Beginning::kNone;
    low = low << 6 | (given ? bytes[i] & 0x3F : 0);
    high = high << 6 | (given ? bytes[i] & 0x3F : 0x3F);
  }
  low = std::max(low, kLeast[length]);
  high = std::min<uint32_t>(high, 0x10FFFF);
  const bool surrogates = low >= 0xD800 && high <= 0xDFFF;
  if (low > high || surrogates) return Beginning::kNone;
  return bytes.size() == length ? Beginning::kWhole : Beginning::kPart;
}

Utf8Unit expected_unit(std::string_view text) {
  Beginning found = Beginning::kNone;
  size_t size = 0;
  while (size < text.size() && found != Beginning::kWhole) {
    const Beginning next = beginning_of(text.substr(0, size + 1));
    if (next == Beginning::kNone) break;
    found = next;
    ++size;
  }
  if (found == Beginning::kWhole) return {Kind::kCharacter, size};
  if (found == Beginning::kNone) return {Kind::kInvalid, 1};
  return {size == text.size() ? Kind::kIncomplete : Kind::kInvalid, size};
}

// A vocabulary of the text's pieces.
class Pieces final : public Tokenizer {
 public:
  explicit Pieces(std::string_view text) {
    while (!text.empty()) {
      const size_t size = std::min<size_t>(static_cast<unsigned char>(text[0]) % 6, text.size());
      pieces_.push_back(text.substr(0, size));
      pieces_.push_back(text.substr(size, 1));
      text.remove_prefix(std::min(size + 1, text.size()));
    }
  }
  size_t encode_beginning(std::string_view text, bool, std::vector<int64_t>&) const override { return text.size(); }
  std::string_view token(int64_t id) const override { return pieces_[static_cast<size_t>(id)]; }
  bool has_token(int64_t id) const override { return id >= 0 && id < vocab_size(); }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  std::string fingerprint() const override { return ""; }

 private:
  std::vector<std::string_view> pieces_;
};

void check_text(std::string_view text) {
  std::string repaired;
  size_t valid = 0;
  size_t incomplete = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = expected_unit(text.substr(i));
    if (unit.kind == Kind::kCharacter) {
      repaired += text.substr(i, unit.size);
      if (valid == i) valid += unit.size;
    } else {
      repaired += "\xEF\xBF\xBD";
    }
    if (unit.kind == Kind::kIncomplete) incomplete = unit.size;
    i += unit.size;
  }
  expect(valid_utf8_size(text) == valid);
  expect(incomplete_utf8_size(text) == incomplete);
  expect(replace_invalid_utf8(text) == repaired);
  expect(valid_utf8_size(repaired) == repaired.size() && incomplete_utf8_size(repaired) == 0);

  const Pieces pieces(text);
  Detokenizer detokenizer(pieces);
  for (int round = 0; round < 2; ++round) {
    std::string joined;
    for (int64_t id = 0; id < pieces.vocab_size(); ++id) {
      const std::string piece = detokenizer.push(id);
      expect(valid_utf8_size(piece) == piece.size());
      joined += piece;
    }
    expect(joined + detokenizer.finish() == repaired);
  }
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view text) {
    for (size_t i = 0; i < text.size(); ++i) {  // from everywhere, also from inside a character
      const optp::Utf8Unit unit = optp::first_utf8_unit(text.substr(i));
      const optp::Utf8Unit expected = optp::expected_unit(text.substr(i));
      optp::expect(unit.kind == expected.kind && unit.size == expected.size);
    }
    optp::check_text(text);
  });
}

#include "src/data/word_splitter.h"

#include <c10/util/Exception.h>

#include <array>
#include <string>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace optp {
namespace {

// Debian's PCRE2 10.42 knows Unicode 14, older ones Unicode 13. With what came after 13 spelt out, the words are the
// same whatever PCRE2 is installed.
constexpr const char* kLetters =
    "\\p{L}"
    "\\x{870}-\\x{887}\\x{889}-\\x{88E}\\x{8B5}\\x{8C8}-\\x{8C9}\\x{C5D}\\x{CDD}\\x{170D}\\x{171F}\\x{1B4C}"
    "\\x{1C89}-\\x{1C8A}\\x{2C2F}\\x{2C5F}\\x{9FFD}-\\x{9FFF}\\x{A7C0}-\\x{A7C1}\\x{A7CB}-\\x{A7CD}"
    "\\x{A7D0}-\\x{A7D1}\\x{A7D3}\\x{A7D5}-\\x{A7DC}\\x{A7F2}-\\x{A7F4}\\x{10570}-\\x{1057A}\\x{1057C}-\\x{1058A}"
    "\\x{1058C}-\\x{10592}\\x{10594}-\\x{10595}\\x{10597}-\\x{105A1}\\x{105A3}-\\x{105B1}\\x{105B3}-\\x{105B9}"
    "\\x{105BB}-\\x{105BC}\\x{105C0}-\\x{105F3}\\x{10780}-\\x{10785}\\x{10787}-\\x{107B0}\\x{107B2}-\\x{107BA}"
    "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{10F70}-\\x{10F81}\\x{11071}-\\x{11072}"
    "\\x{11075}\\x{1123F}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}"
    "\\x{113D1}\\x{113D3}\\x{11740}-\\x{11746}\\x{11AB0}-\\x{11ABF}\\x{11BC0}-\\x{11BE0}\\x{11F02}"
    "\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}\\x{12F90}-\\x{12FF0}\\x{1342F}\\x{13441}-\\x{13446}"
    "\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}\\x{16A70}-\\x{16ABE}\\x{16D40}-\\x{16D6C}\\x{18CFF}"
    "\\x{1AFF0}-\\x{1AFF3}\\x{1AFF5}-\\x{1AFFB}\\x{1AFFD}-\\x{1AFFE}\\x{1B11F}-\\x{1B122}\\x{1B132}\\x{1B155}"
    "\\x{1DF00}-\\x{1DF1E}\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}\\x{1E290}-\\x{1E2AD}\\x{1E4D0}-\\x{1E4EB}"
    "\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{1E7E0}-\\x{1E7E6}\\x{1E7E8}-\\x{1E7EB}\\x{1E7ED}-\\x{1E7EE}"
    "\\x{1E7F0}-\\x{1E7FE}\\x{2A6DE}-\\x{2A6DF}\\x{2B735}-\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}";
constexpr const char* kNumbers =
    "\\p{N}"
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}"
    "\\x{16AC0}-\\x{16AC9}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}"
    "\\x{1E5F1}-\\x{1E5FA}";
// White_Space; PCRE2's \s also has U+180E.
constexpr const char* kSpaces =
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";

// '(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// Quantifiers are possessive where nothing is ever given back, so that a match needs no memory.
std::string word_pattern() {
  const std::string letters = kLetters;
  const std::string numbers = kNumbers;
  const std::string spaces = kSpaces;
  return "'(?:[stmd]|re|ve|ll)| ?+[" + letters + "]++| ?+[" + numbers + "]++| ?+[^" + spaces + letters + numbers +
         "]++|[" + spaces + "]+(?![^" + spaces + "])|[" + spaces + "]++";
}

std::string pcre2_message(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct WordSplitter::Pattern {
  pcre2_code* code = nullptr;
  pcre2_match_data* match = nullptr;
};

WordSplitter::WordSplitter() : pattern_(std::make_unique<Pattern>()) {
  const std::string text = word_pattern();
  int error = 0;
  PCRE2_SIZE where = 0;
  pattern_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_ANCHORED,
                                 &error, &where, nullptr);
  TORCH_CHECK(pattern_->code != nullptr, "PCRE2 does not take the pattern of the words: ", pcre2_message(error), " at ",
              where, ".");
  // Where the system forbids compiled code, matching falls back to interpretation: slower, and the same.
  pcre2_jit_compile(pattern_->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  pattern_->match = pcre2_match_data_create(1, nullptr);
  TORCH_CHECK(pattern_->match != nullptr, "PCRE2: out of memory.");
}

WordSplitter::~WordSplitter() {
  pcre2_match_data_free(pattern_->match);
  pcre2_code_free(pattern_->code);
}

std::optional<size_t> WordSplitter::first_word(std::string_view text, bool last) const {
  // A partial match is reported as soon as the matcher wants to see beyond the end, before any shorter alternative.
  const uint32_t options = PCRE2_NO_UTF_CHECK | (last ? 0 : PCRE2_PARTIAL_HARD);
  const int result = pcre2_match(pattern_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, options,
                                 pattern_->match, nullptr);
  if (result == PCRE2_ERROR_PARTIAL) return std::nullopt;
  TORCH_CHECK(result > 0, "PCRE2 found no word in the text: ", pcre2_message(result), ".");
  return pcre2_get_ovector_pointer(pattern_->match)[1];
}

}  // namespace optp

// The tokenizer that needs no files: every byte is a token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace optp {

/// Byte b is id 4 + b; ids 0 to 3 are OPT's special tokens.
inline constexpr int64_t kFirstByteToken = 4;
inline constexpr int64_t kByteVocabulary = kFirstByteToken + 256;

inline std::vector<int64_t> byte_tokens(const std::string& text) {
  std::vector<int64_t> ids;
  ids.reserve(text.size());
  for (const char c : text) ids.push_back(kFirstByteToken + static_cast<unsigned char>(c));
  return ids;
}

}  // namespace optp

// The tokenizer that needs no files: every byte is a token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/tokenizer.h"

namespace optp {

/// Byte b is id 4 + b; ids 0 to 3 are `<s>`, `<pad>`, `</s>` and `<unk>`, as in OPT's vocabulary.
class ByteTokenizer : public Tokenizer {
 public:
  size_t encode_beginning(std::string_view text, bool last, std::vector<int64_t>& ids) const override;
  std::string_view token(int64_t id) const override;
  bool has_token(int64_t id) const override;
  int64_t vocab_size() const override;
  std::string fingerprint() const override { return "bytes"; }
};

}  // namespace optp

#include "src/data/byte_tokenizer.h"

#include <c10/util/Exception.h>

#include <array>

namespace optp {
namespace {

constexpr std::array<std::string_view, 4> kSpecialTokens = {"<s>", "<pad>", "</s>", "<unk>"};
constexpr int64_t kFirstByteToken = kSpecialTokens.size();

}  // namespace

size_t ByteTokenizer::encode_beginning(std::string_view text, bool /*last*/, std::vector<int64_t>& ids) const {
  for (const char c : text) ids.push_back(kFirstByteToken + static_cast<unsigned char>(c));
  return text.size();
}

std::string_view ByteTokenizer::token(int64_t id) const {
  static const auto kBytes = [] {
    std::array<char, 256> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i);
    return bytes;
  }();
  TORCH_CHECK_VALUE(has_token(id), "id ", id, " has no token: those of the tokenizer bytes are 0 to ", vocab_size() - 1,
                    ".");
  if (id < kFirstByteToken) return kSpecialTokens[static_cast<size_t>(id)];
  return {&kBytes[static_cast<size_t>(id - kFirstByteToken)], 1};
}

bool ByteTokenizer::has_token(int64_t id) const { return id >= 0 && id < vocab_size(); }

int64_t ByteTokenizer::vocab_size() const { return kFirstByteToken + 256; }

}  // namespace optp

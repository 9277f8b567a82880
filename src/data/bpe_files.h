// vocab.json and merges.txt, the files of a byte-level BPE.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace optp {

struct BpeFiles {
  struct Merge {
    uint32_t left, right;  ///< ids of two neighbours
    uint32_t merged;       ///< the id that replaces them
  };

  std::filesystem::path folder;
  std::vector<std::optional<std::string>> tokens;  ///< the bytes of each id; none: the id has no token
  std::array<std::optional<uint32_t>, 256> bytes;  ///< the id of each byte alone
  std::vector<Merge> merges;                       ///< most important first
  std::string fingerprint;                         ///< hash of both files
};

/// Reads `folder`/vocab.json and `folder`/merges.txt as Hugging Face's `tokenizers` does: a token is written with
/// GPT-2's printable character for every byte, a merge is two tokens on a line, and of two merges of the same pair the
/// later one counts. Throws c10::ValueError that names the file and the place: missing, empty, not JSON, an id that is
/// negative, too large or given to two tokens, a line that is no merge, a merge of tokens that are not in vocab.json.
BpeFiles read_bpe_files(const std::filesystem::path& folder);

}  // namespace optp

// OPT's tokenizer: byte-level byte pair encoding.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/bpe_files.h"
#include "src/data/bpe_merger.h"
#include "src/data/tokenizer.h"
#include "src/data/word_cache.h"
#include "src/data/word_splitter.h"

namespace optp {

/// Gives the ids that `tokenizers.ByteLevelBPETokenizer(vocab.json, merges.txt)` gives, for every text that is UTF-8.
class BpeTokenizer : public Tokenizer {
 public:
  /// Throws c10::ValueError when the files are not there or not right (bpe_files.h).
  explicit BpeTokenizer(const std::filesystem::path& folder);

  size_t encode_beginning(std::string_view text, bool last, std::vector<int64_t>& ids) const override;
  std::string_view token(int64_t id) const override;
  bool has_token(int64_t id) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(files_.tokens.size()); }
  std::string fingerprint() const override { return files_.fingerprint; }

 private:
  // `subject` is the word as the splitter sees it.
  void encode_word(std::string_view word, std::string_view subject, std::vector<int64_t>& ids) const;
  size_t encode_long_beginning(std::string_view word, std::string_view subject, std::vector<int64_t>& ids) const;

  BpeFiles files_;
  BpeMerger merger_;
  WordSplitter splitter_;
  size_t window_;  // bytes that are merged at once
  mutable WordCache cache_;
};

}  // namespace optp

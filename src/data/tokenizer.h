// Text to token ids and back.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace optp {

/// OPT's special ids, which every tokenizer here shares. No text is encoded to them: their spellings are plain text.
inline constexpr int64_t kPadToken = 1;
inline constexpr int64_t kEndToken = 2;  ///< `</s>`: begins a prompt, ends a document

/// Texts are bytes, valid UTF-8 or not, and `decode(encode(text)) == text` for all of them. One object serves one
/// thread at a time, since it keeps what it has learnt about words. Errors are c10::ValueError.
class Tokenizer {
 public:
  Tokenizer() = default;
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// The ids of a whole text. No special ids are added.
  std::vector<int64_t> encode(std::string_view text) const;

  /// For a text that arrives in pieces: appends to `ids` the ids of as long a beginning of `text` as no continuation
  /// can change, and returns its length in bytes. The rest begins the next call's `text`; it is never longer than 4
  /// MiB, or 4 times the lengths of all merged pairs where that is more. With `last` the text ends here and all is
  /// encoded.
  virtual size_t encode_beginning(std::string_view text, bool last, std::vector<int64_t>& ids) const = 0;

  /// The bytes that the ids stand for; special ids give their spellings. Throws for ids without a token.
  std::string decode(c10::ArrayRef<int64_t> ids) const;

  /// The bytes of one id, valid as long as the tokenizer. Throws when it has no token.
  virtual std::string_view token(int64_t id) const = 0;

  /// Whether an id has a token; those that have none must not be generated.
  virtual bool has_token(int64_t id) const = 0;

  /// One more than the largest id that has a token.
  virtual int64_t vocab_size() const = 0;

  /// Changes whenever the same text might get other ids.
  virtual std::string fingerprint() const = 0;
};

/// "bytes": byte b is id 4 + b, after the four special ids, and no files are needed. Anything else is a folder with
/// OPT's byte-level BPE, `vocab.json` and `merges.txt`, as Hugging Face's `tokenizers` reads and applies it. A byte
/// that belongs to no character of UTF-8 is split off like a symbol (neither letter, number nor white space) and merged
/// like any other.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& name);

/// What `open_tokenizer` takes for a model whose user names no tokenizer: the model's folder if that holds one, else
/// "bytes". Throws where the folder holds a tokenizer of another kind or half of one.
std::string tokenizer_of_model(const std::filesystem::path& model_folder);

}  // namespace optp

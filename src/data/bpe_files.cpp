#include "src/data/bpe_files.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <string_view>
#include <system_error>
#include <unordered_map>

#include "src/checkpoint/model_source.h"
#include "src/checkpoint/safetensors_header.h"
#include "src/data/utf8.h"
#include "src/data/xxh64.h"

namespace optp {
namespace {

constexpr uint64_t kMostIds = uint64_t{1} << 20;

using Vocabulary = std::unordered_map<std::string, uint32_t>;

template <typename... Parts>
[[noreturn]] void refuse_bpe(const std::string& file, const Parts&... parts) {
  C10_THROW_ERROR(ValueError, c10::str("cannot read ", file, ": ", parts..., "."));
}

// Receives the one object of vocab.json piece by piece, so that nothing deeper is ever built.
class VocabularyReader {
 public:
  explicit VocabularyReader(const std::string& file) : file_(file) {}

  Vocabulary take() { return std::move(vocabulary_); }

  bool null() { unexpected("null"); }
  bool boolean(bool value) { unexpected(value ? "true" : "false"); }
  bool number_integer(int64_t value) { unexpected(std::to_string(value)); }  // called for negative numbers alone
  bool number_float(double, const std::string& token) { unexpected(token); }
  bool binary(std::vector<uint8_t>&) { unexpected("binary data"); }  // JSON has none; the interface asks for it
  bool string(std::string& value) { unexpected(shown_name(value)); }
  bool start_array(size_t) { unexpected("an array"); }
  bool end_array() { return true; }
  bool end_object() { return true; }

  bool start_object(size_t) {
    if (inside_) unexpected("an object");
    return inside_ = true;
  }

  bool key(std::string& key) {
    token_ = key;
    return true;
  }

  bool number_unsigned(uint64_t id) {
    if (!inside_ || id >= kMostIds) unexpected(std::to_string(id));
    if (!vocabulary_.emplace(token_, static_cast<uint32_t>(id)).second) {
      refuse_bpe(file_, "it has the token ", shown_name(token_), " twice");
    }
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    refuse_bpe(file_, "it is not valid JSON at byte ", position);
  }

 private:
  [[noreturn]] void unexpected(const std::string& what) const {
    if (!inside_) refuse_bpe(file_, "it holds ", what, ", not an object of tokens and their ids");
    refuse_bpe(file_, "the id of the token ", shown_name(token_), " is ", what, ", not a whole number below ",
               kMostIds);
  }

  const std::string& file_;
  Vocabulary vocabulary_;
  std::string token_;
  bool inside_ = false;
};

Vocabulary parse_vocabulary(const std::string& text, const std::string& file) {
  // The parser takes a zero byte for the end of the text.
  const size_t zero = text.find('\0');
  if (zero != std::string::npos) refuse_bpe(file, "it is not valid JSON at byte ", zero);
  VocabularyReader reader(file);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  Vocabulary vocabulary = reader.take();
  if (vocabulary.empty()) refuse_bpe(file, "it has no tokens");
  return vocabulary;
}

// GPT-2 writes a byte as a printable character: itself where Latin-1 has one, else the next from U+0100 on.
std::vector<std::string> byte_spellings() {
  std::vector<std::string> spellings;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    const uint32_t point = printable ? byte : next++;
    std::string spelling;
    if (point < 0x80) {
      spelling = static_cast<char>(point);
    } else {
      spelling = {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 0x3F))};
    }
    spellings.push_back(spelling);
  }
  return spellings;
}

// What a token of vocab.json stands for. One with a character that stands for no byte, such as a special token in
// another script, stands for itself.
std::string bytes_of(const std::string& token, const std::unordered_map<std::string, char>& alphabet) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const size_t size = first_utf8_unit(std::string_view(token).substr(i)).size;
    const auto byte = alphabet.find(token.substr(i, size));
    if (byte == alphabet.end()) return token;
    bytes += byte->second;
    i += size;
  }
  return bytes;
}

std::vector<BpeFiles::Merge> parse_merges(std::string_view text, const Vocabulary& vocabulary,
                                          const std::string& file) {
  std::vector<BpeFiles::Merge> merges;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version")) continue;

    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      refuse_bpe(file, "line ", number, " is ", shown_name(line), ", not two tokens with a space between");
    }
    const auto id_of = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (found == vocabulary.end()) {
        refuse_bpe(file, "line ", number, " needs the token ", shown_name(token), ", which vocab.json lacks");
      }
      return found->second;
    };
    const std::string left(line.substr(0, space));
    const std::string right(line.substr(space + 1));
    const uint32_t left_id = id_of(left);  // in this order, so that the first that is missing is named
    const uint32_t right_id = id_of(right);
    merges.push_back({left_id, right_id, id_of(left + right)});
  }
  return merges;
}

std::string read_bpe_file(const std::filesystem::path& path) {
  std::string text = read_text_file(path);
  TORCH_CHECK_VALUE(!text.empty(), path.string(), " is empty; copy the file again.");
  return text;
}

}  // namespace

BpeFiles read_bpe_files(const std::filesystem::path& folder) {
  std::error_code ignored;
  TORCH_CHECK_VALUE(std::filesystem::is_directory(folder, ignored), folder.string(),
                    " is no tokenizer: use bytes, or a folder with vocab.json and merges.txt.");
  const std::filesystem::path vocabulary_path = folder / "vocab.json";
  const std::filesystem::path merges_path = folder / "merges.txt";
  const std::string vocabulary_text = read_bpe_file(vocabulary_path);
  const std::string merges_text = read_bpe_file(merges_path);

  BpeFiles files;
  files.folder = folder;
  const Vocabulary vocabulary = parse_vocabulary(vocabulary_text, vocabulary_path.string());
  const std::vector<std::string> spellings = byte_spellings();
  std::unordered_map<std::string, char> alphabet;
  for (size_t byte = 0; byte < spellings.size(); ++byte) {
    alphabet.emplace(spellings[byte], static_cast<char>(byte));
    const auto found = vocabulary.find(spellings[byte]);
    if (found != vocabulary.end()) files.bytes[byte] = found->second;
  }
  for (const auto& [token, id] : vocabulary) {
    if (id >= files.tokens.size()) files.tokens.resize(id + 1);
    std::optional<std::string>& place = files.tokens[id];
    if (place) {
      refuse_bpe(vocabulary_path.string(), "the id ", id, " is given to two tokens, one of them ", shown_name(token));
    }
    place = bytes_of(token, alphabet);
  }
  files.merges = parse_merges(merges_text, vocabulary, merges_path.string());
  files.fingerprint = hex64(xxh64(vocabulary_text)) + hex64(xxh64(merges_text));
  return files;
}

}  // namespace optp

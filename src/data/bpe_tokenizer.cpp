#include "src/data/bpe_tokenizer.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>

#include "src/data/utf8.h"

namespace optp {
namespace {

constexpr size_t kSmallestWindow = size_t{1} << 20;

// `text` if it is UTF-8; else a copy in `cleaned` of the same size, with a symbol in place of each byte that is not.
std::string_view as_utf8(std::string_view text, std::string& cleaned) {
  constexpr char kSymbol = '\x01';  // neither letter, number nor white space
  size_t valid = valid_utf8_size(text);
  if (valid == text.size()) return text;
  cleaned = text;
  while (valid < text.size()) {
    const size_t invalid = first_utf8_unit(text.substr(valid)).size;
    std::fill_n(cleaned.begin() + static_cast<std::ptrdiff_t>(valid), invalid, kSymbol);
    valid += invalid;
    valid += valid_utf8_size(text.substr(valid));
  }
  return cleaned;
}

}  // namespace

BpeTokenizer::BpeTokenizer(const std::filesystem::path& folder)
    : files_(read_bpe_files(folder)), merger_(files_), window_(std::max(kSmallestWindow, 4 * merger_.reach())) {}

size_t BpeTokenizer::encode_beginning(std::string_view text, bool last, std::vector<int64_t>& ids) const {
  const std::string_view whole = last ? text : text.substr(0, text.size() - incomplete_utf8_size(text));
  std::string cleaned;
  const std::string_view subject = as_utf8(whole, cleaned);
  size_t done = 0;
  while (done < whole.size()) {
    const std::optional<size_t> size = splitter_.first_word(subject.substr(done), last);
    if (!size) break;
    encode_word(whole.substr(done, *size), subject.substr(done, *size), ids);
    done += *size;
  }
  return done + encode_long_beginning(whole.substr(done), subject.substr(done), ids);
}

void BpeTokenizer::encode_word(std::string_view word, std::string_view subject, std::vector<int64_t>& ids) const {
  if (word.size() <= WordCache::kLongestWord) {
    if (cache_.find(word, ids)) return;
    const size_t before = ids.size();
    merger_.encode(word, ids);
    cache_.add(word, c10::ArrayRef<int64_t>(ids).slice(before));
  } else {
    merger_.encode(word.substr(encode_long_beginning(word, subject, ids)), ids);
  }
}

// Encodes the beginning of a word that is too long to be merged at once, and which may go on behind what is given;
// returns its size, 0 if the word is short or its merges allow no cut. What begins there is a word of its own, with the
// same ids: no merge reaches across the cut, so either side is merged as if it stood alone.
//
// It is also what the splitter takes for a word. A word so long is a run of one kind of characters, perhaps with a
// space in front, and so is what begins at any of its characters: not a contraction, since no letter follows so soon,
// and of white space the splitter may keep the last character for the next word, far behind the window.
size_t BpeTokenizer::encode_long_beginning(std::string_view word, std::string_view subject,
                                           std::vector<int64_t>& ids) const {
  constexpr size_t kLongestCharacter = 4;
  size_t done = 0;
  while (merger_.reach() > 0 && word.size() - done > window_ + kLongestCharacter) {
    const size_t before = ids.size();
    merger_.encode(word.substr(done, window_), ids);
    size_t end = 0;        // of the token looked at
    size_t cut = 0;        // the last end of a token and of a character far enough from the window's end
    size_t kept = before;  // ids up to it
    for (size_t i = before; i < ids.size(); ++i) {
      end += token(ids[i]).size();
      if (end + merger_.reach() > window_) break;
      const bool inside_character = (static_cast<unsigned char>(subject[done + end]) & 0xC0) == 0x80;
      if (inside_character) continue;
      cut = end;
      kept = i + 1;
    }
    ids.resize(kept);
    if (cut == 0) break;
    done += cut;
  }
  return done;
}

std::string_view BpeTokenizer::token(int64_t id) const {
  TORCH_CHECK_VALUE(has_token(id), "id ", id, " has no token in ", files_.folder.string(),
                    "/vocab.json; use the tokenizer that the ids come from.");
  return *files_.tokens[static_cast<size_t>(id)];
}

bool BpeTokenizer::has_token(int64_t id) const {
  return id >= 0 && id < vocab_size() && files_.tokens[static_cast<size_t>(id)].has_value();
}

}  // namespace optp

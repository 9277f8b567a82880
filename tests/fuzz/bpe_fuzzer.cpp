// vocab.json, merges.txt and a text, with a zero byte between. What is read hangs together; the text gets the ids that
// a merger of another make gives, however it arrives, and comes back from them.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "src/data/bpe_files.h"
#include "src/data/bpe_merger.h"
#include "src/data/bpe_tokenizer.h"
#include "src/data/detokenizer.h"
#include "src/data/utf8.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/given_files.h"

namespace optp {
namespace {

using Ids = std::vector<int64_t>;

void check_files(const BpeFiles& files) {
  const auto is_token = [&](uint32_t id) { return id < files.tokens.size() && files.tokens[id]; };
  expect(!files.tokens.empty() && files.tokens.back());
  for (size_t byte = 0; byte < files.bytes.size(); ++byte) {
    if (!files.bytes[byte]) continue;
    expect(is_token(*files.bytes[byte]));
    expect(*files.tokens[*files.bytes[byte]] == std::string(1, static_cast<char>(byte)));
  }
  for (const BpeFiles::Merge& merge : files.merges) {
    expect(is_token(merge.left) && is_token(merge.right) && is_token(merge.merged));
  }
}

// A vocabulary may leave out a million ids, and to throw takes long, so not all of them are asked for.
void check_ids(const Tokenizer& tokenizer) {
  constexpr int kMostRefused = 100;
  int refused = 0;
  for (int64_t id = tokenizer.vocab_size(); id >= -1; --id) {
    const bool known = tokenizer.has_token(id);
    if (known || ++refused <= kMostRefused) expect(accepts([&] { tokenizer.token(id); }) == known);
  }
  expect(!tokenizer.has_token(-1) && !tokenizer.has_token(tokenizer.vocab_size()));
}

// Byte pair encoding as it is told: look for the most important pair, merge its leftmost, begin again.
Ids merged_plainly(const BpeFiles& files, std::string_view word) {
  std::map<std::pair<int64_t, int64_t>, size_t> ranks;
  for (size_t rank = 0; rank < files.merges.size(); ++rank) {
    ranks[{files.merges[rank].left, files.merges[rank].right}] = rank;
  }
  Ids ids;
  for (const char byte : word) ids.push_back(*files.bytes[static_cast<unsigned char>(byte)]);
  while (true) {
    size_t best = files.merges.size();
    size_t place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      place = i;
    }
    if (best == files.merges.size()) return ids;
    ids[place] = files.merges[best].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

// Of a word that is cut off, the tokens that end reach() bytes before the cut are those of the whole word.
void check_reach(const BpeFiles& files, const BpeMerger& merger, std::string_view word, const Ids& whole) {
  if (merger.reach() == 0) return;
  for (size_t cut = 1; cut < word.size(); ++cut) {
    Ids ids;
    merger.encode(word.substr(0, cut), ids);
    size_t end = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      end += files.tokens[static_cast<size_t>(ids[i])]->size();
      if (end + merger.reach() > cut) break;
      expect(i < whole.size() && ids[i] == whole[i]);
    }
  }
}

// The text as one word, which must not be long.
void check_merger(const BpeFiles& files, std::string_view word) {
  const BpeMerger merger(files);
  Ids ids;
  merger.encode(word, ids);
  expect(ids == merged_plainly(files, word));
  check_reach(files, merger, word, ids);
}

// The text in pieces of `size` bytes.
Ids encoded_in_pieces(const Tokenizer& tokenizer, std::string_view text, size_t size) {
  Ids ids;
  std::string held;
  for (bool last = false; !last;) {
    held += text.substr(0, size);
    text.remove_prefix(std::min(size, text.size()));
    last = text.empty();
    const size_t done = tokenizer.encode_beginning(held, last, ids);
    expect(done <= held.size() && (!last || done == held.size()));
    held.erase(0, done);
  }
  return ids;
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  const Ids ids = tokenizer.encode(text);
  expect(std::all_of(ids.begin(), ids.end(), [&](int64_t id) { return tokenizer.has_token(id); }));
  expect(tokenizer.decode(ids) == text);
  expect(tokenizer.encode(text) == ids);  // now the words are known
  for (const size_t size : {1, 7, 100}) expect(encoded_in_pieces(tokenizer, text, size) == ids);
  Detokenizer detokenizer(tokenizer);
  std::string shown;
  for (const int64_t id : ids) shown += detokenizer.push(id);
  expect(shown + detokenizer.finish() == replace_invalid_utf8(text));
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view rest) {
    optp::given_files["./vocab.json"] = optp::take_part(rest);
    optp::given_files["./merges.txt"] = optp::take_part(rest);
    const std::string_view text = rest.substr(0, 4096);
    const optp::BpeFiles files = optp::read_bpe_files(".");
    optp::check_files(files);

    const optp::BpeTokenizer tokenizer(".");
    optp::check_ids(tokenizer);
    const bool known = std::all_of(text.begin(), text.end(),
                                   [&](char c) { return files.bytes[static_cast<unsigned char>(c)].has_value(); });
    if (known) {
      optp::check_text(tokenizer, text);
      if (!text.empty()) optp::check_merger(files, text.substr(0, 200));
    } else {
      optp::expect(!optp::accepts([&] { tokenizer.encode(text); }));
    }
  });
}

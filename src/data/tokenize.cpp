#include "src/data/tokenize.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "src/checkpoint/atomic_file.h"
#include "src/progress.h"

namespace optp {

void tokenize(TextReader& text, const Tokenizer& tokenizer, const std::string& document_separator, TokenWriter& ids) {
  const bool separated = !document_separator.empty();
  Progress progress("tokenize " + text.path().filename().string(), text.size(), "bytes");
  std::string held;          // what is read and not encoded yet
  bool in_document = false;  // part of the document that `held` goes on with is encoded
  std::vector<int64_t> encoded;
  for (bool last = false; !last;) {
    const size_t searched = held.size();  // no separator lies in there
    last = !text.read(held);
    std::string_view rest = held;
    size_t from = searched < document_separator.size() ? 0 : searched - document_separator.size();
    for (size_t found; separated && (found = rest.find(document_separator, from)) != std::string_view::npos; from = 0) {
      tokenizer.encode_beginning(rest.substr(0, found), /*last=*/true, encoded);
      encoded.push_back(kEndToken);
      rest.remove_prefix(found + document_separator.size());
      in_document = false;
    }
    // The end of what was read may be the beginning of a separator.
    const size_t sure =
        last || !separated ? rest.size() : rest.size() - std::min(rest.size(), document_separator.size() - 1);
    const size_t done = tokenizer.encode_beginning(rest.substr(0, sure), last, encoded);
    if (last && separated && (in_document || !rest.empty())) encoded.push_back(kEndToken);
    in_document = in_document || done > 0;
    ids.write(encoded);
    encoded.clear();
    held.erase(0, held.size() - rest.size() + done);
    progress.update(text.position());
  }
}

int64_t detokenize(const TokenFile& ids, const Tokenizer& tokenizer, const std::filesystem::path& output) {
  constexpr int64_t kBlock = int64_t{1} << 16;
  AtomicFile file(output);
  Progress progress("decode " + ids.path().filename().string(), ids.size(), "tokens");
  std::vector<int64_t> block;
  std::string text;
  int64_t size = 0;
  for (int64_t first = 0; first < ids.size(); first += kBlock) {
    block.resize(static_cast<size_t>(std::min(kBlock, ids.size() - first)));
    ids.read(first, static_cast<int64_t>(block.size()), block.data());
    text.clear();
    for (size_t i = 0; i < block.size(); ++i) {
      TORCH_CHECK_VALUE(tokenizer.has_token(block[i]), ids.path().string(), " holds the id ", block[i], " at index ",
                        first + static_cast<int64_t>(i),
                        ", which has no token; use the tokenizer that the file was made with.");
      text += tokenizer.token(block[i]);
    }
    file.write(text.data(), text.size());
    size += static_cast<int64_t>(text.size());
    progress.update(first + static_cast<int64_t>(block.size()));
  }
  file.commit();
  return size;
}

}  // namespace optp

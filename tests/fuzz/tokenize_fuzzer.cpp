// A text that is read in pieces and tokenized, document by document: the ids are those of the whole text, and it comes
// back from them. An input is the length of the documents' separator, the size of the pieces, the separator, the text.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "src/data/tokenize.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/given_files.h"

namespace optp {
namespace {

constexpr size_t kMostPieces = 16;  // a pipe holds so many
constexpr size_t kLargestPiece = 4096;

struct Input {
  std::string_view separator, text;
  size_t piece = 1;  // bytes
};

Input input_of(std::string_view bytes) {
  const auto number = [&] {
    const size_t value = bytes.empty() ? 0 : static_cast<unsigned char>(bytes[0]);
    bytes.remove_prefix(std::min<size_t>(1, bytes.size()));
    return value;
  };
  const size_t separator = number() % 8;
  const size_t piece = number() + 1;
  Input input{.separator = bytes.substr(0, separator)};
  bytes.remove_prefix(input.separator.size());
  input.text = bytes.substr(0, kMostPieces * kLargestPiece);
  input.piece = std::max(piece, (input.text.size() + kMostPieces - 1) / kMostPieces);
  return input;
}

// A pipe that gives out the text piece by piece, and then ends.
class PieceMaker {
 public:
  explicit PieceMaker(const Input& input) {
    std::array<int, 2> ends{};
    expect(::pipe2(ends.data(), O_DIRECT | O_CLOEXEC) == 0);
    descriptor_ = ends[0];
    for (std::string_view rest = input.text; !rest.empty();) {
      const std::string_view piece = rest.substr(0, input.piece);
      expect(::write(ends[1], piece.data(), piece.size()) == static_cast<ssize_t>(piece.size()));
      rest.remove_prefix(piece.size());
    }
    ::close(ends[1]);
  }
  ~PieceMaker() { ::close(descriptor_); }
  PieceMaker(const PieceMaker&) = delete;
  PieceMaker& operator=(const PieceMaker&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_ = -1;
};

std::vector<int64_t> expected_ids(const Input& input, const Tokenizer& tokenizer) {
  if (input.separator.empty()) return tokenizer.encode(input.text);
  std::vector<int64_t> ids;
  for (std::string_view rest = input.text; !rest.empty();) {
    const size_t end = rest.find(input.separator);
    const std::vector<int64_t> document = tokenizer.encode(rest.substr(0, end));
    ids.insert(ids.end(), document.begin(), document.end());
    ids.push_back(kEndToken);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + input.separator.size());
  }
  return ids;
}

void check_tokenizing(const Input& input, const Tokenizer& tokenizer, const FuzzFolder& folder) {
  const PieceMaker pieces(input);
  TextReader text(pieces.path());
  TokenWriter writer(folder.path() / "ids.npy", tokenizer.vocab_size());
  tokenize(text, tokenizer, std::string(input.separator), writer);
  writer.commit();
  expect(text.position() == static_cast<int64_t>(input.text.size()) && text.hash() == xxh64(input.text));

  const TokenFile file(folder.path() / "ids.npy");
  std::vector<int64_t> ids(static_cast<size_t>(file.size()));
  file.read(0, file.size(), ids.data());
  expect(ids == expected_ids(input, tokenizer));

  const int64_t size = detokenize(file, tokenizer, folder.path() / "text.txt");
  const std::string back = read_file(folder.path() / "text.txt");
  expect(size == static_cast<int64_t>(back.size()) && back == tokenizer.decode(ids));
  expect(!input.separator.empty() || back == input.text);
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  for (const char* name : {"vocab.json", "merges.txt"}) {
    optp::given_files[std::string("./") + name] = optp::read_file(std::string(OPTP_GOLDEN "/tokenizer/") + name);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const optp::FuzzFolder folder;
  static const std::unique_ptr<optp::Tokenizer> pairs = optp::open_tokenizer(".");
  static const std::unique_ptr<optp::Tokenizer> plain = optp::open_tokenizer("bytes");
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const optp::Input input = optp::input_of(bytes);
    optp::check_tokenizing(input, *pairs, folder);
    optp::check_tokenizing(input, *plain, folder);
  });
}

#include "src/data/tokenizer.h"

#include <c10/util/Exception.h>

#include <system_error>

#include "src/data/bpe_tokenizer.h"
#include "src/data/byte_tokenizer.h"

namespace optp {

std::vector<int64_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int64_t> ids;
  encode_beginning(text, /*last=*/true, ids);
  return ids;
}

std::string Tokenizer::decode(c10::ArrayRef<int64_t> ids) const {
  std::string text;
  for (const int64_t id : ids) text += token(id);
  return text;
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  return std::make_unique<BpeTokenizer>(name);
}

std::string tokenizer_of_model(const std::filesystem::path& model_folder) {
  std::error_code ignored;
  const auto holds = [&](const char* file) { return std::filesystem::exists(model_folder / file, ignored); };
  if (holds("vocab.json") || holds("merges.txt")) return model_folder.string();  // opening it says what is missing
  TORCH_CHECK_VALUE(
      !holds("tokenizer.json"), model_folder.string(),
      " has its tokenizer in tokenizer.json alone; name a folder with vocab.json and merges.txt, or bytes, "
      "with --tokenizer.");
  return "bytes";
}

}  // namespace optp

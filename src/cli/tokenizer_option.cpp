#include "src/cli/tokenizer_option.h"

#include <c10/util/Exception.h>

#include <filesystem>

namespace optp::cli {

std::unique_ptr<Tokenizer> find_tokenizer(const std::string& name, const ModelSource& source, bool needed) {
  if (!name.empty()) return open_tokenizer(name);
  std::error_code ignored;
  if (source.path && std::filesystem::exists(*source.path / "vocab.json", ignored)) {
    return open_tokenizer(source.path->string());
  }
  TORCH_CHECK_VALUE(!needed, source.name,
                    " has no vocab.json and merges.txt beside its weights; name their folder, or bytes, with "
                    "--tokenizer.");
  return nullptr;
}

}  // namespace optp::cli

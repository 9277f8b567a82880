// Opens what --train-data and --val-data name: token files, and texts, which are tokenized on the way.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "src/data/token_file.h"

namespace optp {

class ProcessGroup;

/// A path that ends in .npy is a token file. One that ends in .txt is a text: `tokenizer` (as open_tokenizer takes it)
/// makes token ids of it, which are kept in the user's cache folder, never beside the text, so that it happens once for
/// every content of the text and of the tokenizer's files, whatever they are called and however many runs and ranks ask
/// at the same time. Progress is shown. Throws c10::ValueError for any other path, and for what cannot be read or kept.
///
/// Collective over `world`, whose rank 0 does the work of its host; ranks of one host share the cache.
std::vector<std::shared_ptr<const TokenFile>> open_tokens(const std::vector<std::string>& paths,
                                                          const std::string& tokenizer, const ProcessGroup& world);

/// $XDG_CACHE_HOME/optp, or $HOME/.cache/optp where that variable is unset. Throws c10::ValueError where neither is
/// set.
std::filesystem::path cache_folder();

}  // namespace optp

// Whole files: text to token ids and back, in bounded memory.
#pragma once

#include <filesystem>
#include <string>

#include "src/data/text_reader.h"
#include "src/data/token_file.h"
#include "src/data/token_writer.h"
#include "src/data/tokenizer.h"

namespace optp {

/// Writes the ids of the whole text. It is one document, begun and ended by nothing, unless `document_separator` is not
/// empty: then every occurrence of that ends a document and begins another, the separators themselves are left out, and
/// kEndToken follows each document. Nothing behind the last separator is no document.
///
/// The ids are those that `tokenizer` gives each document at once, although it is read in pieces.
void tokenize(TextReader& text, const Tokenizer& tokenizer, const std::string& document_separator, TokenWriter& ids);

/// Writes the bytes that the ids stand for to `output`, which appears when it is whole. Returns their number. Throws
/// c10::ValueError that names the place of an id without a token.
int64_t detokenize(const TokenFile& ids, const Tokenizer& tokenizer, const std::filesystem::path& output);

}  // namespace optp

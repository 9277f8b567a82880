// The tokenizer that a command on text works with.
#pragma once

#include <memory>
#include <string>

#include "src/checkpoint/model_source.h"
#include "src/data/tokenizer.h"

namespace optp::cli {

/// The tokenizer called `name` (as --tokenizer takes it), else the model's own. Without either: null if the command
/// gets along without one, and otherwise a c10::ValueError.
std::unique_ptr<Tokenizer> find_tokenizer(const std::string& name, const ModelSource& source, bool needed);

}  // namespace optp::cli

// Whether a checkpoint is one of this model.
#pragma once

#include <string>

namespace optp {

/// Compares two configurations, texts of JSON objects or empty, key by key, but for what only training reads (dropout,
/// the spread of fresh weights). Throws c10::ValueError that names the first difference to the one of the checkpoint
/// `source`.
void check_model(const std::string& model, const std::string& checkpoint, const std::string& source);

}  // namespace optp

#include "src/train/model_identity.h"

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <set>

namespace optp {
namespace {

nlohmann::json parse_model_config(const std::string& text) {
  if (text.empty()) return nlohmann::json::object();
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

void check_model(const std::string& model, const std::string& checkpoint, const std::string& source) {
  static const std::set<std::string> kFree = {"dropout", "attention_dropout", "init_std"};
  const nlohmann::json own = parse_model_config(model), other = parse_model_config(checkpoint);
  for (const auto& [key, value] : own.items()) {
    if (kFree.contains(key) || (other.contains(key) && other[key] == value)) continue;
    TORCH_CHECK_VALUE(false, source, " is a checkpoint of another model: its ", key, " is ",
                      other.contains(key) ? other[key].dump() : "absent", ", not ", value.dump(),
                      "; name that model, or use another --output.");
  }
}

}  // namespace optp

#include "src/cli/config_file.h"

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <algorithm>

#include "src/checkpoint/model_source.h"

namespace optp::cli {
namespace {

using nlohmann::json;

std::string value_text(const json& value, const std::string& key, const std::string& path) {
  TORCH_CHECK_VALUE(value.is_string() || value.is_number() || value.is_boolean(), path, ": \"", key, "\" is ",
                    value.dump(), "; use a string, a number, true, false, or a list of those.");
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::vector<std::string> config_arguments(const std::string& path, const std::vector<std::string>& given) {
  json options;
  try {
    options = json::parse(read_text_file(path));
  } catch (const json::exception& error) {
    TORCH_CHECK_VALUE(false, path, " is not valid JSON: ", error.what());
  }
  if (options.is_object() && options.contains("options")) options = options["options"];
  TORCH_CHECK_VALUE(options.is_object(), path, " holds no object of options; write {\"tp\": 2} for --tp 2.");
  std::vector<std::string> arguments;
  for (const auto& [key, value] : options.items()) {
    const std::string option = "--" + key;
    const bool overridden = std::any_of(given.begin(), given.end(), [&](const std::string& argument) {
      return argument == option || argument.starts_with(option + "=");
    });
    if (overridden || value.is_null() || value == false) continue;
    if (value == true) {
      arguments.push_back(option);
    } else if (value.is_array()) {
      arguments.push_back(option);
      for (const json& element : value) arguments.push_back(value_text(element, key, path));
    } else {
      arguments.push_back(option + "=" + value_text(value, key, path));
    }
  }
  return arguments;
}

}  // namespace

std::vector<std::string> expand_config(const std::vector<std::string>& arguments) {
  std::vector<std::string> rest;
  std::string path;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--config" && i + 1 < arguments.size()) {
      path = arguments[++i];
    } else if (argument.starts_with("--config=")) {
      path = argument.substr(std::string("--config=").size());
    } else {
      rest.push_back(argument);
    }
  }
  if (path.empty() || rest.size() < 2) return arguments;
  const std::vector<std::string> added = config_arguments(path, rest);
  rest.insert(rest.begin() + 2, added.begin(), added.end());
  return rest;
}

}  // namespace optp::cli

#include "src/cli/config_file.h"

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

#include "src/checkpoint/model_source.h"
#include "src/checkpoint/safetensors_header.h"

namespace optp::cli {
namespace {

using nlohmann::json;

std::string value_text(const json& value, const std::string& key, const std::string& path) {
  TORCH_CHECK_VALUE(value.is_string() || value.is_number() || value.is_boolean(), path, ": ", shown_name(key), " is ",
                    value.is_null()    ? "a list with null"
                    : value.is_array() ? "a list of lists"
                                       : "or holds an object",
                    "; use a string, a number, true, false, or a list of those.");
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// As CLI11 takes it: with "=" the value may begin with a dash, without it may be empty.
void add_value(const std::string& option, const std::string& value, std::vector<std::string>& arguments) {
  if (value.empty()) {
    arguments.insert(arguments.end(), {option, value});
  } else {
    arguments.push_back(option + "=" + value);
  }
}

// An option of two values takes them only together; one of many would read a value with a dash in front as an option.
void add_values(const std::string& option, const std::vector<std::string>& values,
                std::vector<std::string>& arguments) {
  const auto has_dash = [](const std::string& value) { return value.starts_with('-'); };
  if (std::any_of(values.begin(), values.end(), has_dash)) {
    for (const std::string& value : values) add_value(option, value, arguments);
  } else if (!values.empty()) {
    arguments.push_back(option);
    arguments.insert(arguments.end(), values.begin(), values.end());
  }
}

json options_in(const std::string& path) {
  json file;
  try {
    file = json::parse(read_text_file(path));
  } catch (const json::parse_error& error) {
    TORCH_CHECK_VALUE(false, path, " is not valid JSON at byte ", error.byte, ".");
  } catch (const json::exception&) {
    TORCH_CHECK_VALUE(false, path, " is not valid JSON: a number in it is too large.");
  }
  // Moved: a copy takes a stack as deep as the file nests.
  json options = file.is_object() && file.contains("options") ? std::move(file["options"]) : std::move(file);
  TORCH_CHECK_VALUE(options.is_object(), path, " holds no object of options; write {\"tp\": 2} for --tp 2.");
  return options;
}

std::vector<std::string> config_arguments(const std::string& path, const std::vector<std::string>& given) {
  const json options = options_in(path);
  std::vector<std::string> arguments;
  for (const auto& [key, value] : options.items()) {
    TORCH_CHECK_VALUE(!key.empty() && key.find('=') == std::string::npos, path, ": ", shown_name(key),
                      " is the name of no option; write {\"tp\": 2} for --tp 2.");
    const std::string option = "--" + key;
    const bool overridden = std::any_of(given.begin(), given.end(), [&](const std::string& argument) {
      return argument == option || argument.starts_with(option + "=");
    });
    if (overridden || value.is_null() || value == false) continue;
    if (value.is_array()) {
      std::vector<std::string> values;
      for (const json& element : value) values.push_back(value_text(element, key, path));
      add_values(option, values, arguments);
    } else {
      add_value(option, value_text(value, key, path), arguments);  // --flag=true is --flag
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

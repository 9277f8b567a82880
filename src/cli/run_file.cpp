#include "src/cli/run_file.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "src/version.h"

namespace optp::cli {
namespace {

using nlohmann::ordered_json;

// A number where that is written as the text is, so that the file reads well; config_file.h takes both.
ordered_json value_json(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  const ordered_json number = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  return number.is_number() && number.dump() == text ? number : ordered_json(text);
}

}  // namespace

ResolvedOptions resolved_options(const CLI::App& command) {
  ResolvedOptions options;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (name == "help" || name == "config") continue;
    if (option->get_expected_max() == 0) {
      options[name] = {option->count() > 0 && option->as<bool>() ? "true" : "false"};  // --flag=false counts, too
    } else if (option->count() > 0) {
      options[name] = option->results();
    } else if (!option->get_default_str().empty()) {
      options[name] = {option->get_default_str()};
    }
  }
  return options;
}

std::string run_json(const std::string& command, const ResolvedOptions& options) {
  ordered_json values = ordered_json::object();
  for (const auto& [name, texts] : options) {
    if (texts.size() == 1) {
      values[name] = value_json(texts.front());
      continue;
    }
    values[name] = ordered_json::array();
    for (const std::string& text : texts) values[name].push_back(value_json(text));
  }
  ordered_json file;
  file["format"] = "optp-run";
  file["version"] = kVersion;
  file["command"] = command;
  file["options"] = values;
  return file.dump(2) + "\n";
}

}  // namespace optp::cli

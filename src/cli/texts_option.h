// Options that take several texts.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace optp::cli {

/// An option of one text or more, each taken as it is written.
inline CLI::Option* add_texts_option(CLI::App& command, const std::string& name, std::vector<std::string>& texts,
                                     const std::string& description) {
  // Where any number of texts may follow, CLI11 takes "[INST] Hi, you [/INST]" for a list of two, and "[]" for nothing.
  constexpr int kMostTexts = 1 << 20;
  return command.add_option(name, texts, description)
      ->expected(1, kMostTexts)
      ->allow_extra_args(false)
      ->type_name("TEXT ...");
}

}  // namespace optp::cli

// run.json and other files of --config: the command line wins, and a run that is repeated from its own run.json has the
// same options.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <vector>

#include "src/cli/config_file.h"
#include "src/cli/run_file.h"
#include "src/cli/texts_option.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/given_files.h"

namespace optp::cli {
namespace {

using Arguments = std::vector<std::string>;

// What a command with an option of each kind makes of its arguments.
struct Options {
  std::string text, given;
  Arguments list;
  double number = 0.5;
  int64_t count = 1;
  bool flag = false;
  ResolvedOptions resolved;

  friend bool operator==(const Options&, const Options&) = default;
};

// Nothing where it refuses them.
std::optional<Options> parsed(const Arguments& arguments) {
  CLI::App app;
  CLI::App* command = app.add_subcommand("train");
  Options options;
  command->add_option("--text", options.text);
  command->add_option("--given", options.given);
  add_texts_option(*command, "--list", options.list, "");
  command->add_option("--number", options.number)->capture_default_str();
  command->add_option("--count", options.count)->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_flag("--flag", options.flag);
  try {
    app.parse(Arguments(arguments.rbegin(), arguments.rend() - 1));
  } catch (const CLI::Error&) {
    return std::nullopt;
  }
  options.resolved = resolved_options(*command);
  return options;
}

Arguments expanded(const std::string& file) {
  given_files["run.json"] = file;
  const Arguments arguments = expand_config({"optp", "train", "--config", "run.json", "--given=by the command line"});
  expect(arguments.size() >= 3 && arguments[0] == "optp" && arguments[1] == "train");
  expect(arguments.back() == "--given=by the command line");
  const auto gives = [](const std::string& argument) {
    return argument == "--given" || argument.starts_with("--given=");
  };
  expect(std::count_if(arguments.begin(), arguments.end(), gives) == 1);
  return arguments;
}

}  // namespace
}  // namespace optp::cli

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const auto options = optp::cli::parsed(optp::cli::expanded(std::string(bytes)));
    // In run.json the text "false" is a flag that was not given.
    if (!options || options->text == "false" || options->list == optp::cli::Arguments{"false"}) return;
    const std::string file = optp::cli::run_json("train", options->resolved);
    const auto again = optp::cli::parsed(optp::cli::expanded(file));
    optp::expect(again == options && optp::cli::run_json("train", again->resolved) == file);
  });
}

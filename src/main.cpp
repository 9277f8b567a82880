// The program `optp`: parses, runs one command, and turns every error into one line and an exit status.
#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "src/cli/commands.h"
#include "src/cli/config_file.h"
#include "src/status_signal.h"
#include "src/version.h"

namespace {

constexpr int kBadInput = 2;
constexpr int kRankFailed = 3;

int fail(const std::string& message, int status) {
  std::cerr << "optp: " + message.substr(0, message.find('\n')) + "\n" << std::flush;
  return status;
}

int run(std::vector<std::string> arguments) {
  // What launch starts has options of its own.
  const bool launches = arguments.size() > 1 && arguments[1] == "launch";
  if (!launches) arguments = optp::cli::expand_config(arguments);
  CLI::App app(
      "OPT with tensor parallelism, in C++ on LibTorch.\n"
      "optp COMMAND --help explains a command; `optp verify` is a good first one.",
      "optp");
  app.set_version_flag("--version", std::string("optp ") + optp::kVersion);
  app.require_subcommand(1);
  optp::cli::Runner runner;
  optp::cli::add_verify(app, runner);
  optp::cli::add_forward(app, runner);
  optp::cli::add_train(app, runner);
  optp::cli::add_tokenize(app, runner);
  optp::cli::add_plan(app, runner);
  optp::cli::add_generate(app, runner);
  optp::cli::add_eval(app, runner);
  optp::cli::add_convert(app, runner);
  optp::cli::add_bench(app, runner);
  optp::cli::add_launch(app, runner);
  const std::string command = arguments.size() > 1 ? arguments[1] : "";
  const auto named = [&](const CLI::App* candidate) { return candidate->get_name() == command; };
  if (!command.empty() && !command.starts_with("-") && app.get_subcommands(named).empty()) {
    return fail("\"" + command + "\" is no command; optp --help lists them.", kBadInput);
  }
  try {
    const std::vector<std::string> own = launches ? optp::cli::split_launch_arguments(arguments).own : arguments;
    std::vector<std::string> reversed(own.rbegin(), own.rend() - 1);  // as CLI11 takes them
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    std::cout << (chosen.empty() ? app.help() : chosen.front()->help());
    return 0;
  } catch (const CLI::CallForVersion& version) {
    std::cout << version.what() << "\n";
    return 0;
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + "; see optp --help.", kBadInput);
  }
  return runner(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  // c10d prints stack traces for what reaches the user as one sentence.
  FLAGS_caffe2_log_level = c10::GLOG_FATAL;
  optp::survive_status_signal();
  try {
    return run({argv, argv + argc});
  } catch (const c10::DistError& error) {
    return fail(error.what_without_backtrace(), kRankFailed);
  } catch (const c10::ValueError& error) {
    return fail(error.what_without_backtrace(), kBadInput);
  } catch (const c10::IndexError& error) {
    return fail(error.what_without_backtrace(), kBadInput);
  } catch (const c10::Error& error) {
    return fail(error.what_without_backtrace(), kRankFailed);
  } catch (const std::bad_alloc&) {
    return fail("out of memory; use a smaller model or batch, or more ranks.", kRankFailed);
  } catch (const std::exception& error) {
    return fail(error.what(), kRankFailed);
  }
}

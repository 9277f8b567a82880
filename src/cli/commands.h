// The commands of the program. Each adds itself to the command line and runs when it was chosen.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace optp::cli {

/// Runs the chosen command; returns the exit status. `arguments` are the program's own, with which ranks are started.
using Runner = std::function<int(const std::vector<std::string>& arguments)>;

/// Each sets `runner` when its command is parsed.
void add_verify(CLI::App& app, Runner& runner);
void add_forward(CLI::App& app, Runner& runner);
void add_train(CLI::App& app, Runner& runner);
void add_tokenize(CLI::App& app, Runner& runner);
void add_plan(CLI::App& app, Runner& runner);
void add_generate(CLI::App& app, Runner& runner);
void add_eval(CLI::App& app, Runner& runner);
void add_convert(CLI::App& app, Runner& runner);
void add_bench(CLI::App& app, Runner& runner);
void add_launch(CLI::App& app, Runner& runner);

/// The arguments of `optp launch`: its own, and those of the program that it starts.
struct LaunchSplit {
  std::vector<std::string> own;      // torchrun's underscores turned into dashes
  std::vector<std::string> program;  // its name first; what follows "--", or the first argument that is no option
};
LaunchSplit split_launch_arguments(const std::vector<std::string>& arguments);

}  // namespace optp::cli

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

}  // namespace optp::cli

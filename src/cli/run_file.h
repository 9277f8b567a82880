// run.json: the complete options of a run, with which `--config` repeats it.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace optp::cli {

/// The options of a parsed command by their long names without dashes, as text: those that were given, and the defaults
/// of the others. A flag is "true" or "false". Left out: --help, --config, and options without value and default.
using ResolvedOptions = std::map<std::string, std::vector<std::string>>;
ResolvedOptions resolved_options(const CLI::App& command);

/// The text of a run.json: {"format": .., "command": .., "options": {..}}.
std::string run_json(const std::string& command, const ResolvedOptions& options);

}  // namespace optp::cli

// `--config FILE`: options from a JSON file.
#pragma once

#include <string>
#include <vector>

namespace optp::cli {

/// Replaces `--config FILE` in a command line by the options that the file holds. They are put behind the command's
/// name, and those that the command line gives itself are left out, so the command line wins.
///
/// The file is an object of options by their long names without dashes, `{"tp": 2, "checks": "forward"}`, or a
/// `run.json`, which holds such an object under "options". true stands for a flag that is given, false and null for one
/// that is not, a list for an option with several values. Throws c10::ValueError that names the file and the key.
std::vector<std::string> expand_config(const std::vector<std::string>& arguments);

}  // namespace optp::cli

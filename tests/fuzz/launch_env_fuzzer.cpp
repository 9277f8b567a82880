// The variables in which a launcher says which rank this is, one NAME=VALUE after the other with a zero byte between,
// as in /proc/self/environ: a rank of the world and of its host, or an error that begins with the variable's name.
#include <algorithm>
#include <map>

#include "parallel/launch_env.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

using Variables = std::map<std::string, std::string>;

Variables variables_in(std::string_view bytes) {
  Variables variables;
  while (!bytes.empty()) {
    const std::string_view entry = take_part(bytes);
    const size_t equals = std::min(entry.find('='), entry.size());
    variables[std::string(entry.substr(0, equals))] = entry.substr(std::min(equals + 1, entry.size()));
  }
  return variables;
}

void check_env(const LaunchEnv& env) {
  expect(env.rank >= 0 && env.rank < env.world_size);
  expect(env.local_rank >= 0 && env.local_rank < env.local_world_size && env.local_world_size <= env.world_size);
  expect(env.master_port >= 0 && env.master_port <= 65535 && env.restart_count >= 0);
  expect(env.world_size == 1 || (!env.master_addr.empty() && env.master_port > 0));
}

// "RANK is ..." and the like: the sentence is about a variable that was asked for.
bool names_variable(const std::string& message, const Variables& asked) {
  const size_t space = message.find(' ');
  return space != std::string::npos && asked.contains(message.substr(0, space));
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const optp::Variables variables = optp::variables_in({reinterpret_cast<const char*>(data), size});
  optp::Variables asked;
  const auto get = [&](const std::string& name) -> std::optional<std::string> {
    asked[name];
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  try {
    if (const auto env = optp::read_launch_env(get)) optp::check_env(*env);
  } catch (const c10::ValueError& error) {
    optp::expect(optp::names_variable(error.what_without_backtrace(), asked));
  }
  return 0;
}

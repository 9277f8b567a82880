#include "src/launch/spawn.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace optp {
namespace {

constexpr int kExecFailed = 127;

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// Runs in the child: only calls that are safe after fork.
[[noreturn]] void become(const SpawnPlan& plan, char* const* argv, char* const* environment, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kExecFailed);  // the parent died before the line above
  if (plan.in >= 0) dup2(plan.in, STDIN_FILENO);
  if (plan.out >= 0) dup2(plan.out, STDOUT_FILENO);
  if (plan.err >= 0) dup2(plan.err, STDERR_FILENO);
  closefrom(STDERR_FILENO + 1);
  sigprocmask(SIG_SETMASK, &plan.signal_mask, nullptr);
  execve(plan.program.c_str(), argv, environment);
  dprintf(STDERR_FILENO, "optp: cannot start %s: %s\n", plan.program.c_str(), strerrordesc_np(errno));
  _exit(kExecFailed);
}

}  // namespace

std::vector<std::string> changed_environment(const Variables& variables) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    const bool replaced = std::any_of(variables.begin(), variables.end(),
                                      [&](const auto& variable) { return text.starts_with(variable.first + "="); });
    if (!replaced) result.emplace_back(text);
  }
  for (const auto& [name, value] : variables) result.push_back(name + "=" + value);
  return result;
}

void open_closed_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDWR);
  }
}

pid_t spawn(const SpawnPlan& plan) {
  const std::vector<char*> argv = pointers(plan.argv);
  const std::vector<char*> environment = pointers(plan.environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become(plan, argv.data(), environment.data(), parent);
  return pid;
}

}  // namespace optp

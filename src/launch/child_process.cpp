#include "src/launch/child_process.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace optp {
namespace {

constexpr size_t kKeptBytes = 64 * 1024;
constexpr int kExecFailed = 127;  // as shells say it

std::vector<std::string> changed_environment(const std::vector<std::pair<std::string, std::string>>& variables) {
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

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// Runs in the child: only calls that are safe after fork. `output` is the pipe's end to write to, or -1.
[[noreturn]] void become(const char* program, char* const* argv, char* const* environment, int output,
                         const sigset_t& signal_mask, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kExecFailed);  // the parent died before the line above
  if (output >= 0) {
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
  }
  closefrom(STDERR_FILENO + 1);
  sigprocmask(SIG_SETMASK, &signal_mask, nullptr);
  execve(program, argv, environment);
  dprintf(STDERR_FILENO, "optp: cannot start %s: %s\n", program, strerror(errno));
  _exit(kExecFailed);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& argv,
                           const std::vector<std::pair<std::string, std::string>>& variables, Output output,
                           const sigset_t& signal_mask) {
  const std::vector<std::string> environment = changed_environment(variables);
  const std::vector<char*> argv_pointers = pointers(argv);
  const std::vector<char*> environment_pointers = pointers(environment);
  // The real path, so that tools such as pgrep show the program's name and not "exe".
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  int ends[2] = {-1, -1};
  TORCH_CHECK(output == Output::kInherited || pipe2(ends, O_CLOEXEC) == 0,
              "cannot make a pipe: ", std::strerror(errno));
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    become(program.c_str(), argv_pointers.data(), environment_pointers.data(), ends[1], signal_mask, parent);
  }
  const int fork_error = errno;
  if (ends[1] >= 0) close(ends[1]);
  if (pid_ < 0 && ends[0] >= 0) close(ends[0]);
  TORCH_CHECK(pid_ > 0, "cannot start another process: ", std::strerror(fork_error));
  output_fd_ = ends[0];
  if (output_fd_ >= 0) fcntl(output_fd_, F_SETFL, O_NONBLOCK);
}

ChildProcess::~ChildProcess() {
  if (running_) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  if (output_fd_ >= 0) close(output_fd_);
}

bool ChildProcess::reap() {
  if (!running_ || waitpid(pid_, &wait_status_, WNOHANG) != pid_) return false;
  running_ = false;
  read_output();
  return true;
}

void ChildProcess::send(int signal) {
  if (running_) kill(pid_, signal);
}

void ChildProcess::read_output() {
  if (output_fd_ < 0) return;
  // One piece, as much as a pipe holds: a child that never stops writing must not keep its reader from other work.
  char piece[kKeptBytes];
  const ssize_t count = read(output_fd_, piece, sizeof(piece));
  if (count > 0) {
    output_.append(piece, static_cast<size_t>(count));
    if (output_.size() > kKeptBytes) {
      const size_t cut = output_.size() - kKeptBytes;
      const size_t line_end = output_.find('\n', cut);
      // Begins with a whole line, unless all that is kept is one line.
      output_.erase(0, line_end < output_.size() - 1 ? line_end + 1 : cut);
    }
  } else if (count == 0) {
    close(output_fd_);
    output_fd_ = -1;
  }
}

}  // namespace optp

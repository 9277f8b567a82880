#include "src/launch/child_process.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace optp {
namespace {

constexpr size_t kKeptBytes = 64 * 1024;

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& argv, const Variables& variables, Output output,
                           const sigset_t& signal_mask) {
  // The real path, so that tools such as pgrep show the program's name and not "exe".
  SpawnPlan plan{.program = std::filesystem::read_symlink("/proc/self/exe"),
                 .argv = argv,
                 .environment = changed_environment(variables),
                 .signal_mask = signal_mask};
  int ends[2] = {-1, -1};
  if (output == Output::kKept) {
    TORCH_CHECK(pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe: ", std::strerror(errno));
    plan.in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    plan.out = plan.err = ends[1];
  }
  pid_ = spawn(plan);
  const int fork_error = errno;
  if (ends[1] >= 0) {
    close(ends[1]);
    close(plan.in);
  }
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

std::string ChildProcess::read_output() {
  if (output_fd_ < 0) return "";
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
  return {piece, static_cast<size_t>(std::max<ssize_t>(count, 0))};
}

}  // namespace optp

#include "tests/support/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

namespace optp::testing {

namespace fs = std::filesystem;

bool wait_until(const std::function<bool()>& ready, int seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!ready()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

std::string read_file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void write_text(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "optp-test-XXXXXX").string();
  path_ = mkdtemp(name.data());
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

StartedProgram::StartedProgram(const std::vector<std::string>& command, const Environment& environment,
                               const fs::path& folder)
    : out_(folder / "stdout"), err_(folder / "stderr") {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_ = fork();
  if (pid_ != 0) return;
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  const int out = open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int err = open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int in = open("/dev/null", O_RDONLY);
  dup2(in, 0);
  dup2(out, 1);
  dup2(err, 2);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

StartedProgram::~StartedProgram() {
  if (pid_ > 0) wait(0);
}

std::vector<int> StartedProgram::children() const {
  std::istringstream list(read_file("/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_) + "/children"));
  return {std::istream_iterator<int>(list), std::istream_iterator<int>()};
}

std::string StartedProgram::output_text() const { return read_file(out_); }

std::string StartedProgram::error_text() const { return read_file(err_); }

ProgramResult StartedProgram::wait(int seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() >= deadline) {
      kill(pid_, SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  pid_ = -1;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(out_), read_file(err_)};
}

ProgramResult run_program(const std::vector<std::string>& command, const Environment& environment, int seconds) {
  const TemporaryFolder folder;
  return StartedProgram(command, environment, folder.path()).wait(seconds);
}

ProgramResult run_optp(const std::vector<std::string>& arguments, const Environment& environment, int seconds) {
  std::vector<std::string> command{OPTP_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_program(command, environment, seconds);
}

}  // namespace optp::testing

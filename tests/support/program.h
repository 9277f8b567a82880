// Runs the program under test as its users do.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace optp::testing {

struct ProgramResult {
  int status = -1;  ///< exit status, or 128 + signal
  std::string out;
  std::string err;
};

using Environment = std::map<std::string, std::string>;

/// Runs `optp` with `arguments` and returns when it has ended; `environment` is added to this process's. A run that
/// takes longer than `seconds` is killed and returns 128 + 9.
ProgramResult run_optp(const std::vector<std::string>& arguments, const Environment& environment = {},
                       int seconds = 240);

/// Any other program, by its path.
ProgramResult run_program(const std::vector<std::string>& command, const Environment& environment = {},
                          int seconds = 240);

/// A program that was started and runs on; its output goes to files in `folder`.
class StartedProgram {
 public:
  StartedProgram(const std::vector<std::string>& command, const Environment& environment,
                 const std::filesystem::path& folder);
  ~StartedProgram();
  StartedProgram(const StartedProgram&) = delete;
  StartedProgram& operator=(const StartedProgram&) = delete;

  int pid() const { return pid_; }
  /// Process ids of its children, oldest first.
  std::vector<int> children() const;
  std::string output_text() const;
  std::string error_text() const;
  ProgramResult wait(int seconds);

 private:
  int pid_ = -1;
  std::filesystem::path out_, err_;
};

/// A new empty folder, removed at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Waits until `ready` holds; false if it does not within so many seconds.
bool wait_until(const std::function<bool()>& ready, int seconds = 60);

std::string read_file(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace optp::testing

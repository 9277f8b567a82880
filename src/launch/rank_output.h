// What one rank prints on one of its streams: tagged and passed on line by line, its end remembered, kept in a log.
#pragma once

#include <deque>
#include <filesystem>
#include <string>

#include "src/launch/line_printer.h"

namespace optp {

class RankOutput {
 public:
  /// Reads from `fd`, which it takes over and which must not block, and prints lines as "[rank 1] text" on `target`.
  /// With a `log` (a path) the bytes are also added to that file, as they are; it is created for the user alone. Throws
  /// c10::ValueError if it cannot be. A log that cannot be written later is given up with a warning.
  RankOutput(int rank, int fd, int target, LinePrinter& printer, const std::filesystem::path& log);
  ~RankOutput();
  RankOutput(const RankOutput&) = delete;
  RankOutput& operator=(const RankOutput&) = delete;

  /// Readable when read has something to do; -1 once the stream has ended.
  int fd() const { return fd_; }
  /// Takes one piece, without waiting; false if there was none.
  bool read();
  /// Prints what is left of a line that has no end.
  void finish();
  /// The last lines, without their ends; none that is empty.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  void print_line(const std::string& line);
  void log(const char* piece, size_t size);

  int rank_;
  int fd_;
  int target_;
  LinePrinter& printer_;
  std::filesystem::path log_path_;
  int log_ = -1;
  std::string begun_line_;
  std::deque<std::string> last_lines_;
};

/// Makes a folder and those above it that are missing, for the user alone. Throws c10::ValueError.
void make_log_folder(const std::filesystem::path& folder);

}  // namespace optp

// Lines on standard output and standard error from many sources, whole and in order, without ever waiting for whoever
// reads them.
#pragma once

#include <deque>
#include <string>

namespace optp {

class LinePrinter {
 public:
  /// Queues `line`, a newline included, for the descriptor `fd` and writes what can be written.
  void print(int fd, std::string line);

  /// Whether the reader is so far behind that sources should not be read for now.
  bool full() const;
  /// The descriptor that must become writable before more can be written; -1 if nothing waits.
  int waiting_for() const { return lines_.empty() ? -1 : lines_.front().fd; }
  /// Writes what can be written. Call it when waiting_for() is writable.
  void write_some();

 private:
  struct Line {
    int fd;
    std::string text;
  };
  std::deque<Line> lines_;
  size_t written_ = 0;  // of the first line
  size_t bytes_ = 0;    // of all lines
};

}  // namespace optp

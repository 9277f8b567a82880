// How far a piece of work is, on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace optp {

/// A bar with rate and time left at the bottom of a terminal, which is gone when the object is; where standard error is
/// no terminal, plain lines: after 2 seconds, then ever further apart, up to a minute. Nothing with --quiet or on a
/// rank that does not speak (log.h). Lines logged meanwhile appear above the bar.
class Progress {
 public:
  /// `what`: begins the line, "tokenize book.txt". `total`: where `done` ends, 0 if that is not known. `unit`: what is
  /// counted, in the plural; "bytes" are shown as kB, MB or GB. `done`: where the work begins, if not at 0.
  Progress(std::string what, int64_t total, std::string unit, int64_t done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// So much is done now; `note` is put at the end: "loss 3.21". Cheap enough to be called often: it prints only when
  /// it is time to.
  void update(int64_t done, const std::string& note = {});

 private:
  using Clock = std::chrono::steady_clock;

  std::string line(int64_t done, const std::string& note) const;
  std::string bar(int64_t done, const std::string& note, size_t width) const;

  std::string what_;
  int64_t total_;
  std::string unit_;
  bool enabled_, on_terminal_;
  Clock::time_point begin_, next_;
  // A smoothed rate, as of a moment.
  double rate_ = 0;  // units a second; 0: not known yet
  Clock::time_point measured_;
  int64_t measured_done_;
};

/// "12 s", "3 min 05 s", "2 h 10 min", "3 d 4 h": two units at most.
std::string duration_text(double seconds);

/// "950 bytes", "12.3 MB": powers of ten.
std::string bytes_text(int64_t bytes);

}  // namespace optp

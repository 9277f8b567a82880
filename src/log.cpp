#include "src/log.h"

#include <iostream>

namespace optp {
namespace {

LogLevel least_level = LogLevel::info;
bool this_rank_speaks = true;
std::string status;

constexpr const char* kClearLine = "\r\x1b[K";

}  // namespace

void set_log(LogLevel least, bool speaks) {
  least_level = least;
  this_rank_speaks = speaks;
}

bool log_enabled(LogLevel level) { return this_rank_speaks && level >= least_level; }

void log_line(LogLevel level, const std::string& text) {
  // One write a line, so that the lines of several processes do not mix.
  if (!log_enabled(level)) return;
  std::cerr << (status.empty() ? text + "\n" : kClearLine + text + "\n" + status) << std::flush;
}

void show_status(const std::string& text) {
  if (!text.empty() || !status.empty()) std::cerr << kClearLine + text << std::flush;
  status = text;
}

}  // namespace optp

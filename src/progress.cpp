#include "src/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "src/log.h"

namespace optp {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr Seconds kRedraw{0.1};
constexpr Seconds kFirstLine{2};
constexpr Seconds kLongestPause{60};
constexpr double kSmoothing = 10;  // seconds over which the rate is averaged

template <typename... Values>
std::string format_text(const char* format, Values... values) {
  std::array<char, 128> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

bool error_is_terminal() {
  const char* terminal = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
}

size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Three digits that count, never fewer than the whole number has.
std::string three_digits(double value) {
  return format_text("%.*f", value >= 100 ? 0 : value >= 10 ? 1 : value >= 0.9995 ? 2 : 3, value);
}

std::string amount(double count, const std::string& unit) {
  return unit == "bytes" ? bytes_text(std::llround(count)) : three_digits(count) + " " + unit;
}

// "12/40 steps", "1.2 MB/3.4 GB".
std::string counted(int64_t done, int64_t total, const std::string& unit) {
  if (unit == "bytes") return bytes_text(done) + (total > 0 ? "/" + bytes_text(total) : "");
  return std::to_string(done) + (total > 0 ? "/" + std::to_string(total) : "") + " " + unit;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<long>(std::clamp(std::ceil(seconds), 0.0, 1e12));
  if (whole < 60) return format_text("%ld s", whole);
  if (whole < 3600) return format_text("%ld min %02ld s", whole / 60, whole % 60);
  if (whole < 86400) return format_text("%ld h %02ld min", whole / 3600, whole / 60 % 60);
  return format_text("%ld d %ld h", whole / 86400, whole / 3600 % 24);
}

std::string bytes_text(int64_t bytes) {
  if (bytes < 1000) return std::to_string(bytes) + " bytes";
  constexpr std::array<const char*, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  return three_digits(value) + " " + kUnits[unit];
}

Progress::Progress(std::string what, int64_t total, std::string unit, int64_t done)
    : what_(std::move(what)),
      total_(total),
      unit_(std::move(unit)),
      enabled_(log_enabled(LogLevel::info)),
      on_terminal_(error_is_terminal()),
      begin_(Clock::now()),
      next_(begin_ + std::chrono::duration_cast<Clock::duration>(on_terminal_ ? kRedraw : kFirstLine)),
      measured_(begin_),
      measured_done_(done) {}

Progress::~Progress() {
  if (enabled_ && on_terminal_) show_status("");
}

void Progress::update(int64_t done, const std::string& note) {
  if (!enabled_) return;
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  const double passed = Seconds(now - measured_).count();
  const double rate = static_cast<double>(done - measured_done_) / passed;
  rate_ = rate_ == 0 ? rate : rate_ + (rate - rate_) * (1 - std::exp(-passed / kSmoothing));
  measured_ = now;
  measured_done_ = done;
  Seconds pause = kRedraw;
  if (on_terminal_) {
    show_status(bar(done, note, terminal_width() - 1));
  } else {
    log_line(LogLevel::info, line(done, note));
    pause = std::clamp<Seconds>((now - begin_) / 4, kFirstLine, kLongestPause);
  }
  next_ = now + std::chrono::duration_cast<Clock::duration>(pause);
}

std::string Progress::line(int64_t done, const std::string& note) const {
  std::string text = counted(done, total_, unit_) + ", " + amount(rate_, unit_) + "/s";
  if (total_ > done && rate_ > 0) text += ", " + duration_text(static_cast<double>(total_ - done) / rate_) + " left";
  if (!note.empty()) text += ", " + note;
  return what_ + ": " + text;
}

// The line with a bar behind its first words, as long as there is room for.
std::string Progress::bar(int64_t done, const std::string& note, size_t width) const {
  constexpr size_t kMostCells = 30;
  constexpr size_t kAround = 8;  // " 100% []"
  std::string text = line(done, note);
  if (total_ > 0) {
    const double part = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    const size_t room = width - std::min(width, text.size() + kAround);
    const size_t cells = std::min(room, kMostCells);
    const auto full = static_cast<size_t>(part * static_cast<double>(cells));
    std::string drawn(full, '=');
    if (full < cells) drawn += '>' + std::string(cells - full - 1, ' ');
    if (cells > 0) drawn = " [" + drawn + "]";
    text = what_ + format_text(" %3.0f%%", std::floor(100 * part)) + drawn + text.substr(what_.size() + 1);
  }
  // Cut where a character begins, so that none is printed in half.
  size_t size = std::min(width, text.size());
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
  return text.substr(0, size);
}

}  // namespace optp

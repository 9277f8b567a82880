#include "src/launch/line_printer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

namespace optp {
namespace {

constexpr size_t kMostWaitingBytes = 1024 * 1024;

}  // namespace

void LinePrinter::print(int fd, std::string line) {
  bytes_ += line.size();
  lines_.push_back({fd, std::move(line)});
  write_some();
}

bool LinePrinter::full() const { return bytes_ > kMostWaitingBytes; }

void LinePrinter::write_some() {
  while (!lines_.empty()) {
    const Line& line = lines_.front();
    pollfd ready{line.fd, POLLOUT, 0};
    if (poll(&ready, 1, 0) <= 0) return;
    // A pipe that is ready takes PIPE_BUF bytes at once. The descriptor cannot be made non-blocking, because others
    // share it.
    const size_t size = std::min<size_t>(line.text.size() - written_, PIPE_BUF);
    const ssize_t count = write(line.fd, line.text.data() + written_, size);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
    // What cannot be written (the disk is full, the terminal is gone) is dropped: the run is worth more than its words.
    written_ += count < 0 ? size : static_cast<size_t>(count);
    if (written_ < line.text.size()) continue;
    bytes_ -= line.text.size();
    written_ = 0;
    lines_.pop_front();
  }
}

}  // namespace optp

#include "src/inference/shared_lines.h"

#include <ATen/ATen.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <utility>

namespace optp {
namespace {

constexpr int64_t kStillWaiting = -1, kEndOfInput = -2;
constexpr int kPatienceMilliseconds = 2000;

}  // namespace

SharedLines::SharedLines(ProcessGroup group, std::string prompt)
    : group_(std::move(group)), prompt_(std::move(prompt)) {}

std::optional<std::string> SharedLines::next() {
  bool ask = group_.rank() == 0 && isatty(STDIN_FILENO) == 1;
  while (true) {
    if (ask) std::cerr << prompt_ << std::flush;
    ask = false;
    std::optional<std::string> line;
    if (group_.rank() == 0) line = poll_line();
    at::Tensor size = at::scalar_tensor(kStillWaiting, at::kLong);
    if (line) {
      size.fill_(static_cast<int64_t>(line->size()));
    } else if (ended_) {
      size.fill_(kEndOfInput);
    }
    group_.broadcast_(size, 0, "prompt");
    const int64_t bytes = size.item<int64_t>();
    if (bytes == kEndOfInput) return std::nullopt;
    ask = bytes == 0 && group_.rank() == 0 && isatty(STDIN_FILENO) == 1;
    if (bytes <= 0) continue;
    at::Tensor text = at::empty({bytes}, at::kByte);
    if (line) std::memcpy(text.data_ptr(), line->data(), line->size());
    group_.broadcast_(text, 0, "prompt");
    return std::string(static_cast<const char*>(text.const_data_ptr()), static_cast<size_t>(bytes));
  }
}

std::optional<std::string> SharedLines::poll_line() {
  const auto take_line = [&]() -> std::optional<std::string> {
    const size_t end = buffer_.find('\n');
    if (end == std::string::npos && (!ended_ || buffer_.empty())) return std::nullopt;
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end == std::string::npos ? end : end + 1);
    if (line.ends_with('\r')) line.pop_back();
    return line;
  };
  if (auto line = take_line()) return line;
  pollfd input{STDIN_FILENO, POLLIN, 0};
  const int ready = poll(&input, 1, kPatienceMilliseconds);
  if (ready > 0) {
    char bytes[4096];
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count > 0) buffer_.append(bytes, static_cast<size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) ended_ = true;
  }
  return take_line();
}

}  // namespace optp

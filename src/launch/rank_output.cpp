#include "src/launch/rank_output.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace optp {
namespace {

constexpr size_t kLastLines = 10;
constexpr size_t kLastLineBytes = 1000;
constexpr size_t kLongestLine = 256 * 1024;  // longer ones are printed in pieces

}  // namespace

RankOutput::RankOutput(int rank, int fd, int target, LinePrinter& printer, const std::filesystem::path& log)
    : rank_(rank), fd_(fd), target_(target), printer_(printer), log_path_(log) {
  if (log_path_.empty()) return;
  log_ = open(log_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  TORCH_CHECK_VALUE(log_ >= 0, "cannot make the log ", log_path_.string(), " (", std::strerror(errno),
                    "): name another folder with --log-dir");
}

RankOutput::~RankOutput() {
  for (const int fd : {fd_, log_}) {
    if (fd >= 0) close(fd);
  }
}

bool RankOutput::read() {
  if (fd_ < 0) return false;
  char piece[64 * 1024];
  const ssize_t count = ::read(fd_, piece, sizeof(piece));
  if (count < 0) return false;
  if (count == 0) {
    close(fd_);
    fd_ = -1;
    return false;
  }
  const auto size = static_cast<size_t>(count);
  log(piece, size);
  size_t begin = 0;
  for (size_t i = 0; i < size; ++i) {
    if (piece[i] != '\n') continue;
    begun_line_.append(piece + begin, i - begin);
    print_line(begun_line_);
    begun_line_.clear();
    begin = i + 1;
  }
  begun_line_.append(piece + begin, size - begin);
  if (begun_line_.size() > kLongestLine) finish();
  return true;
}

void RankOutput::finish() {
  if (!begun_line_.empty()) print_line(begun_line_);
  begun_line_.clear();
}

void RankOutput::print_line(const std::string& line) {
  printer_.print(target_, c10::str("[rank ", rank_, "] ", line, "\n"));
  if (line.empty()) return;
  last_lines_.push_back(line.substr(0, kLastLineBytes));
  if (last_lines_.size() > kLastLines) last_lines_.pop_front();
}

void RankOutput::log(const char* piece, size_t size) {
  for (size_t written = 0; log_ >= 0 && written < size;) {
    const ssize_t count = write(log_, piece + written, size - written);
    if (count >= 0) {
      written += static_cast<size_t>(count);
    } else if (errno != EINTR) {
      printer_.print(STDERR_FILENO, c10::str("optp: cannot write the log ", log_path_.string(), " (",
                                             std::strerror(errno), "); the run goes on without it\n"));
      close(log_);
      log_ = -1;
    }
  }
}

void make_log_folder(const std::filesystem::path& folder) {
  std::filesystem::path path;
  for (const std::filesystem::path& part : folder) {
    path /= part;
    const bool made = mkdir(path.c_str(), 0700) == 0;
    TORCH_CHECK_VALUE(made || std::filesystem::is_directory(path), "cannot make the folder ", path.string(), " (",
                      std::strerror(errno), "): name another with --log-dir");
  }
}

}  // namespace optp

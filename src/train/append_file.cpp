#include "src/train/append_file.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace optp {
namespace {

[[noreturn]] void append_failed(const std::filesystem::path& path, int error) {
  TORCH_CHECK_VALUE(false, "cannot write ", path.string(), ": ", std::system_category().message(error), ".");
}

}  // namespace

AppendFile::AppendFile(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (descriptor_ < 0) append_failed(path_, errno);
}

AppendFile::~AppendFile() { ::close(descriptor_); }

void AppendFile::append(std::string_view record) {
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  while (!record.empty()) {
    const ssize_t written = ::write(descriptor_, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      if (::ftruncate(descriptor_, before) != 0) append_failed(path_, errno);
      append_failed(path_, error);
    }
    record.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace optp

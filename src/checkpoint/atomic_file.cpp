#include "src/checkpoint/atomic_file.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

namespace optp {

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  // Renaming would replace even /dev/null, given the right to.
  std::error_code ignored;
  TORCH_CHECK_VALUE(!std::filesystem::exists(path_, ignored) || std::filesystem::is_regular_file(path_, ignored),
                    "cannot write ", path_.string(), ": it exists and is not a regular file.");
  // The name does not grow with the target's, which may be as long as a name can be. A left-over of a killed process
  // that had our id is stepped over.
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    temporary_ = path_.parent_path() / (".optp-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    check(descriptor_ >= 0 || errno == EEXIST);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  constexpr size_t kLargestWrite = size_t{1} << 30;  // Linux writes less than 2 GiB a call
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, next, std::min(size, kLargestWrite));
    if (written < 0 && errno == EINTR) continue;
    check(written >= 0);
    next += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::overwrite(size_t offset, const void* data, size_t size) {
  const ssize_t written = ::pwrite(descriptor_, data, size, static_cast<off_t>(offset));
  check(written == static_cast<ssize_t>(size));
}

void AtomicFile::commit() {
  check(::fsync(descriptor_) == 0);
  check(::rename(temporary_.c_str(), path_.c_str()) == 0);
  ::close(descriptor_);
  descriptor_ = -1;
  // The new name, too, shall survive a power cut. Some file systems cannot flush a folder; the file is whole all the
  // same.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const int folder_descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_descriptor < 0) return;
  ::fsync(folder_descriptor);
  ::close(folder_descriptor);
}

void AtomicFile::check(bool succeeded) const {
  TORCH_CHECK_VALUE(succeeded, "cannot write ", path_.string(), ": ", std::system_category().message(errno), ".");
}

}  // namespace optp

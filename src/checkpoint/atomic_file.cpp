#include "src/checkpoint/atomic_file.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

namespace optp {

AtomicFile::AtomicFile(std::filesystem::path path, unsigned mode) : path_(std::move(path)) {
  // Renaming would replace even /dev/null, given the right to.
  std::error_code ignored;
  TORCH_CHECK_VALUE(!std::filesystem::exists(path_, ignored) || std::filesystem::is_regular_file(path_, ignored),
                    "cannot write ", path_.string(), ": it exists and is not a regular file.");
  // The name does not grow with the target's, which may be as long as a name can be. A left-over of a killed process
  // that had our id is stepped over.
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    temporary_ = path_.parent_path() / (".optp-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    check(descriptor_ >= 0 || errno == EEXIST);
  }
  // Tells remove_abandoned_files that there is a writer; goes with the process.
  ::flock(descriptor_, LOCK_EX | LOCK_NB);
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
    size_ += static_cast<uint64_t>(written);
  }
  // The disk works while the caller prepares what comes next, and is never far behind: the flush at the end is short.
  constexpr uint64_t kWindow = uint64_t{32} << 20;
  constexpr unsigned kAndWait = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (size_ - flushing_from_ < kWindow) return;
  const auto sync = [this](uint64_t begin, uint64_t end, unsigned how) {
    ::sync_file_range(descriptor_, static_cast<off64_t>(begin), static_cast<off64_t>(end - begin), how);
  };
  sync(flushing_from_, size_, SYNC_FILE_RANGE_WRITE);
  if (flushed_to_ < flushing_from_) sync(flushed_to_, flushing_from_, kAndWait);
  flushed_to_ = flushing_from_;
  flushing_from_ = size_;
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
  flush_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

void AtomicFile::check(bool succeeded) const {
  TORCH_CHECK_VALUE(succeeded, "cannot write ", path_.string(), ": ", std::system_category().message(errno), ".");
}

void flush_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

void remove_abandoned_files(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(".optp-") || !name.ends_with(".tmp")) continue;
    const int descriptor = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0) continue;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) ::unlink(entry.path().c_str());
    ::close(descriptor);
  }
}

}  // namespace optp

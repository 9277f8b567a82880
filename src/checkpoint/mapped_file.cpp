#include "src/checkpoint/mapped_file.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace optp {

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  // Without O_NONBLOCK, opening a FIFO waits for a writer.
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  TORCH_CHECK_VALUE(descriptor >= 0, "cannot open ", path_.string(), ": ", std::system_category().message(errno), ".");
  struct stat status{};
  const bool known = ::fstat(descriptor, &status) == 0;
  void* data = MAP_FAILED;
  if (known && S_ISREG(status.st_mode) && status.st_size > 0) {
    data = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
  }
  const int error = errno;
  ::close(descriptor);  // the mapping stays

  TORCH_CHECK_VALUE(!known || S_ISREG(status.st_mode), "cannot read ", path_.string(), ": it is not a regular file.");
  TORCH_CHECK_VALUE(!known || status.st_size > 0, "cannot read ", path_.string(), ": the file is empty.");
  TORCH_CHECK_VALUE(data != MAP_FAILED, "cannot read ", path_.string(), ": ", std::system_category().message(error),
                    ".");
  data_ = static_cast<const char*>(data);
  size_ = static_cast<size_t>(status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

}  // namespace optp

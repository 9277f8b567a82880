#include "parallel/shared_memory_region.h"

#include <c10/util/StringUtil.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "parallel/host_process.h"

namespace optp {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (value_ >= 0) close(value_);
  }
  int get() const { return value_; }

 private:
  int value_;
};

void say(c10d::Store& store, const std::string& key, const std::string& text) {
  store.set(key, std::vector<uint8_t>(text.begin(), text.end()));
}

std::string hear(c10d::Store& store, const std::string& key) {
  const std::vector<uint8_t> text = store.get(key);
  return {text.begin(), text.end()};
}

std::byte* map_shared(int descriptor, size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
}

std::string last_error() { return std::strerror(errno); }

}  // namespace

std::optional<SharedMemoryRegion> SharedMemoryRegion::open(c10d::Store& store, int64_t rank, int64_t size, size_t bytes,
                                                           std::string& why_not) {
  say(store, c10::str("host/", rank), host_identity());
  const std::string host = hear(store, "host/0");
  for (int64_t other = 1; other < size; ++other) {
    if (hear(store, c10::str("host/", other)) == host) continue;
    why_not = c10::str("rank ", other, " runs on another host than rank 0, in another container or for another user");
    return std::nullopt;
  }

  // Rank 0 keeps its descriptor until all have mapped the memory or failed to.
  const FileDescriptor made(rank == 0 ? memfd_create("optp", MFD_CLOEXEC) : -1);
  std::byte* data = nullptr;
  std::string failure;
  if (rank == 0) {
    if (made.get() >= 0 && ftruncate(made.get(), static_cast<off_t>(bytes)) == 0) data = map_shared(made.get(), bytes);
    if (!data) failure = c10::str("rank 0 cannot make ", bytes, " bytes of shared memory (", last_error(), ")");
    say(store, "region", c10::str("/proc/", getpid(), "/fd/", made.get()));
  } else {
    const FileDescriptor opened(::open(hear(store, "region").c_str(), O_RDWR | O_CLOEXEC));
    if (opened.get() >= 0) data = map_shared(opened.get(), bytes);
    if (!data) failure = c10::str("rank ", rank, " cannot map rank 0's memory (", last_error(), ")");
  }
  say(store, c10::str("mapped/", rank), failure);
  for (int64_t other = 0; other < size; ++other) {
    const std::string theirs = hear(store, c10::str("mapped/", other));
    if (why_not.empty()) why_not = theirs;
  }
  if (why_not.empty()) return SharedMemoryRegion(data, bytes);
  if (data) munmap(data, bytes);
  return std::nullopt;
}

SharedMemoryRegion::SharedMemoryRegion(SharedMemoryRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

SharedMemoryRegion::~SharedMemoryRegion() {
  if (data_) munmap(data_, bytes_);
}

}  // namespace optp

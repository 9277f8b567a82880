// Memory without a name that the ranks of one host map together.
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace optp {

/// Zeros at first. It exists as long as a process has it mapped, so however the ranks end, nothing stays behind; and
/// it needs no /dev/shm, which is small in containers.
class SharedMemoryRegion {
 public:
  /// Maps `bytes` that rank 0 makes (memfd_create) and the others open through /proc. Call it on all `size` ranks with
  /// the same bytes and a store of their own keys. All of them get the region, or none does: then `why_not` says what
  /// stood against it ("rank 2 runs on another host"), the same on every rank. Throws c10::DistBackendError when a rank
  /// does not come within the store's time limit.
  static std::optional<SharedMemoryRegion> open(c10d::Store& store, int64_t rank, int64_t size, size_t bytes,
                                                std::string& why_not);

  SharedMemoryRegion(SharedMemoryRegion&& other) noexcept;
  SharedMemoryRegion(const SharedMemoryRegion&) = delete;
  SharedMemoryRegion& operator=(const SharedMemoryRegion&) = delete;
  SharedMemoryRegion& operator=(SharedMemoryRegion&&) = delete;
  ~SharedMemoryRegion();

  std::byte* data() const { return data_; }

 private:
  SharedMemoryRegion(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_;
  size_t bytes_;
};

}  // namespace optp

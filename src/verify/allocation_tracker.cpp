#include "src/verify/allocation_tracker.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <memory>

namespace optp {
namespace {

// LibTorch's CPU allocator reports every allocation and release of a thread that has one of these.
class AllocationTracker : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* pointer, int64_t bytes, size_t allocated, size_t reserved, c10::Device device) override {
    live_ += bytes;
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t live() const { return live_; }

 private:
  int64_t live_ = 0;
};

}  // namespace

int64_t bytes_left_by(const std::function<void()>& body) {
  auto tracker = std::make_shared<AllocationTracker>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, tracker);
    body();
  }
  return tracker->live();
}

}  // namespace optp

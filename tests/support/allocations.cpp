#include "tests/support/allocations.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace optp::testing {
namespace {

struct Live {
  std::atomic<int64_t> now = 0;
  std::atomic<int64_t> peak = 0;

  void add(int64_t bytes) {
    const int64_t live = now += bytes;
    for (int64_t old = peak; old < live && !peak.compare_exchange_weak(old, live);) {
    }
  }
};

thread_local std::shared_ptr<Live> t_live;

// Memory that is counted until it is freed, whichever thread does that: a collective's last reference to a tensor is
// often dropped by a thread of Gloo, which LibTorch's own reports would miss.
struct Counted {
  at::DataPtr memory;
  std::shared_ptr<Live> live;
  int64_t bytes;

  static void free(void* counted) {
    auto* self = static_cast<Counted*>(counted);
    self->live->now -= self->bytes;
    delete self;
  }
};

class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* base) : base_(base) {}

  at::DataPtr allocate(size_t bytes) override {
    at::DataPtr memory = base_->allocate(bytes);
    if (!t_live) return memory;
    t_live->add(static_cast<int64_t>(bytes));
    void* data = memory.get();
    const at::Device device = memory.device();
    auto* counted = new Counted{std::move(memory), t_live, static_cast<int64_t>(bytes)};
    return {data, counted, &Counted::free, device};
  }
  at::DeleterFnPtr raw_deleter() const override { return base_->raw_deleter(); }
  void copy_data(void* target, const void* source, std::size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }

 private:
  c10::Allocator* base_;
};

void install_allocator() {
  static CountingAllocator allocator(c10::GetCPUAllocator());
  static std::once_flag once;
  std::call_once(once, [] { c10::SetCPUAllocator(&allocator, /*priority=*/1); });
}

}  // namespace

Allocations allocations_of(const std::function<void()>& body) {
  install_allocator();
  auto live = std::make_shared<Live>();
  t_live = live;
  body();
  t_live.reset();
  // A thread of Gloo may still hold what the last collectives needed.
  int64_t before = -1;
  for (int quiet = 0; quiet < 5; before == live->now ? ++quiet : (quiet = 0)) {
    before = live->now;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return {live->peak, live->now};
}

}  // namespace optp::testing

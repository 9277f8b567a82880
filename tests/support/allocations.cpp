#include "tests/support/allocations.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

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

// Memory is counted until it is freed, whichever thread does that: a collective's last reference to a tensor is often
// dropped by a thread of Gloo, which LibTorch's own reports would miss. LibTorch also allocates without keeping more
// than the address (raw_allocate), so what belongs to an address is looked up.
struct Counted {
  std::shared_ptr<Live> live;
  int64_t bytes;
};

// Never destroyed: tensors of static life are freed after everything else.
struct Book {
  std::mutex mutex;
  std::unordered_map<void*, Counted> entries;
  c10::DeleterFnPtr base_deleter = nullptr;

  static Book& the() {
    static Book* book = new Book;
    return *book;
  }
};

void free_counted(void* memory) {
  Book& book = Book::the();
  {
    const std::lock_guard lock(book.mutex);
    const auto found = book.entries.find(memory);
    if (found != book.entries.end()) {
      found->second.live->now -= found->second.bytes;
      book.entries.erase(found);
    }
  }
  book.base_deleter(memory);
}

class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* base) : base_(base) { Book::the().base_deleter = base->raw_deleter(); }

  at::DataPtr allocate(size_t bytes) override {
    at::DataPtr memory = base_->allocate(bytes);
    void* data = memory.get();
    if (!t_live || data == nullptr) return memory;
    t_live->add(static_cast<int64_t>(bytes));
    {
      Book& book = Book::the();
      const std::lock_guard lock(book.mutex);
      book.entries[data] = {t_live, static_cast<int64_t>(bytes)};
    }
    const at::Device device = memory.device();
    memory.release_context();
    return {data, data, &free_counted, device};
  }
  at::DeleterFnPtr raw_deleter() const override { return &free_counted; }
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

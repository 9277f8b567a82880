#include "src/process_memory.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

namespace optp {
namespace {

// Not getrusage, whose figure a process takes over from the one that started it.
int64_t status_bytes(const char* key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kibibytes = 0;
    if (word == key && status >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

}  // namespace

int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

int64_t anonymous_resident_bytes() { return status_bytes("RssAnon:"); }

void keep_freed_memory() {
  if (std::getenv("GLIBC_TUNABLES") != nullptr) return;
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
}

AnonymousGrowth::AnonymousGrowth() {
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
  malloc_trim(0);
  peak_ = start_ = anonymous_resident_bytes();
  thread_ = std::thread([this] {
    while (!done_) {
      peak_ = std::max<int64_t>(peak_, anonymous_resident_bytes());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
}

AnonymousGrowth::~AnonymousGrowth() {
  done_ = true;
  thread_.join();
  // Where glibc's own adjustment ends.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
}

int64_t AnonymousGrowth::peak_bytes() const { return std::max<int64_t>(peak_, anonymous_resident_bytes()) - start_; }

}  // namespace optp

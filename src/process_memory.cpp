#include "src/process_memory.h"

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

}  // namespace optp

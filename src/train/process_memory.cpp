#include "src/train/process_memory.h"

#include <fstream>
#include <string>

namespace optp {

// Not getrusage, whose figure a process takes over from the one that started it.
int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kibibytes = 0;
    if (word == "VmHWM:" && status >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

}  // namespace optp

// What the fuzzers share. Each feeds bytes to a reader of files: it may return or throw c10::ValueError with a
// sentence; anything else (another exception, a crash, a sanitizer's report, minutes of work, gigabytes of memory) is a
// finding.
#pragma once

#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace optp {

/// Runs `read` on the bytes; ends the process when an error is not one sentence on one line.
template <typename Read>
int fuzz(const uint8_t* data, size_t size, const Read& read) {
  try {
    read(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const c10::ValueError& error) {
    const std::string message = error.what_without_backtrace();
    if (message.empty() || message.back() != '.' || message.find('\n') != std::string::npos || message.size() > 1000) {
      std::abort();
    }
  }
  return 0;
}

}  // namespace optp

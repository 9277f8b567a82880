// What the fuzzers share. Each feeds bytes to a reader of files: it may return or throw c10::ValueError with a
// sentence; anything else (another exception, a crash, a sanitizer's report, minutes of work, gigabytes of memory) is a
// finding, and so is a promise of the reader that does not hold.
#pragma once

#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace optp {

/// Ends the process unless it holds.
inline void expect(bool holds) {
  if (!holds) std::abort();
}

/// Whether `read` returns instead of refusing what it was given; ends the process when an error is not one sentence on
/// one line.
template <typename Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const c10::ValueError& error) {
    const std::string message = error.what_without_backtrace();
    const bool sentence = message.ends_with('.') && message.find('\n') == std::string::npos && message.size() <= 1000;
    if (!sentence) std::fprintf(stderr, "No sentence: %s\n", message.c_str());
    expect(sentence);
    return false;
  }
}

/// Runs `read` on the bytes.
template <typename Read>
int fuzz(const uint8_t* data, size_t size, const Read& read) {
  accepts([&] { read(std::string_view(reinterpret_cast<const char*>(data), size)); });
  return 0;
}

}  // namespace optp

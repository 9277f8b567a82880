// What the kernel counts of this process's memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace optp {

/// Largest resident memory of this process so far in bytes, mapped files included; 0 where the kernel does not say.
int64_t peak_resident_bytes();

/// Anonymous resident memory of this process in bytes (RssAnon: mapped files are not counted); 0 where the kernel does
/// not say.
int64_t anonymous_resident_bytes();

/// Makes malloc keep what is freed. Every step asks for the same large tensors; by default glibc gives them back to the
/// kernel in between, and every step pays for the page faults (a tenth of a forward pass of OPT-125M). A heap that
/// keeps them has gaps, so the process takes up to half as much again as its tensors do; whoever prefers less memory
/// sets GLIBC_TUNABLES, which are then left as they are.
void keep_freed_memory();

/// Follows how much the anonymous memory of this process grows, in a thread that looks 500 times a second. Meanwhile
/// malloc gives back to the kernel what is freed, so that the growth is what is in use and not what malloc keeps.
class AnonymousGrowth {
 public:
  /// What was freed before is given back first, or it would be taken again without a trace.
  AnonymousGrowth();
  AnonymousGrowth(const AnonymousGrowth&) = delete;
  AnonymousGrowth& operator=(const AnonymousGrowth&) = delete;
  ~AnonymousGrowth();

  /// The largest growth so far, in bytes.
  int64_t peak_bytes() const;

 private:
  int64_t start_;
  std::atomic<int64_t> peak_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace optp

// What this process does, as LibTorch tells it to observers.
#pragma once

#include <ATen/record_function.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

namespace optp {

struct Span {
  const std::string* name;
  int64_t begin, end;  ///< nanoseconds since 1970
  uint64_t thread;
};

/// Nanoseconds since 1970.
int64_t now_ns();

/// Records every span of RECORD_USER_SCOPE, and LibTorch's operators that take a while, from construction to stop().
/// At most one at a time in a process; made and stopped while no other thread works.
class SpanRecorder {
 public:
  explicit SpanRecorder(int64_t most_spans);
  SpanRecorder(const SpanRecorder&) = delete;
  SpanRecorder& operator=(const SpanRecorder&) = delete;
  ~SpanRecorder() { stop(); }

  void stop();
  /// In the order in which they ended. Call after stop().
  const std::vector<Span>& spans() const { return spans_; }
  /// Spans beyond `most_spans`.
  int64_t left_out() const { return left_out_; }

 private:
  static void end(const at::RecordFunction& function, at::ObserverContext* context);

  int64_t most_spans_, left_out_ = 0;
  at::CallbackHandle handle_ = 0;
  bool recording_ = false;
  std::mutex mutex_;
  std::unordered_set<std::string> names_;
  std::vector<Span> spans_;
};

}  // namespace optp

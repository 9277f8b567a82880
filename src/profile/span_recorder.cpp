#include "src/profile/span_recorder.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

namespace optp {
namespace {

constexpr int64_t kShortestOperator = 5'000;  // ns: what takes no time would fill the trace

std::atomic<SpanRecorder*> g_recorder = nullptr;  // LibTorch's callbacks are plain functions

struct SpanStart : at::ObserverContext {
  const int64_t begin = now_ns();
};

std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& /*function*/) {
  return std::make_unique<SpanStart>();
}

}  // namespace

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

SpanRecorder::SpanRecorder(int64_t most_spans) : most_spans_(most_spans) {
  g_recorder = this;
  handle_ = at::addGlobalCallback(
      at::RecordFunctionCallback(&start, &end).scopes({at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE}));
  recording_ = true;
}

void SpanRecorder::stop() {
  if (!std::exchange(recording_, false)) return;
  at::removeCallback(handle_);
  g_recorder = nullptr;
}

void SpanRecorder::end(const at::RecordFunction& function, at::ObserverContext* context) {
  SpanRecorder* recorder = g_recorder;
  if (recorder == nullptr) return;
  const int64_t begin = static_cast<SpanStart*>(context)->begin, end = now_ns();
  if (function.scope() == at::RecordScope::FUNCTION && end - begin < kShortestOperator) return;
  const std::lock_guard lock(recorder->mutex_);
  if (static_cast<int64_t>(recorder->spans_.size()) == recorder->most_spans_) {
    ++recorder->left_out_;
    return;
  }
  const std::string& name = *recorder->names_.emplace(function.name()).first;
  recorder->spans_.push_back({&name, begin, end, at::RecordFunction::currentThreadId()});
}

}  // namespace optp

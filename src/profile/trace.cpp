#include "src/profile/trace.h"

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "parallel/agreement.h"
#include "src/checkpoint/atomic_file.h"
#include "src/log.h"
#include "src/profile/span_recorder.h"

namespace optp {
namespace {

// "category", "name" of a span.
std::pair<std::string_view, std::string_view> parts_of(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kProducts{
      "aten::mm",     "aten::addmm",  "aten::bmm",    "aten::baddbmm",
      "aten::linear", "aten::matmul", "aten::addmm_", "mkldnn::_linear_pointwise"};
  for (const std::string_view product : kProducts) {
    if (name == product) return {"product", name};
  }
  if (name.starts_with("aten::_scaled_dot_product")) return {"product", name};
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos) return {"op", name};
  return {name.substr(0, slash), name.substr(slash + 1)};
}

std::string metadata(const char* kind, int64_t rank, int64_t thread, const std::string& name) {
  return c10::str(R"({"ph":"M","name":")", kind, R"(","pid":)", rank, R"(,"tid":)", thread, R"(,"args":{"name":")",
                  name, "\"}}");
}

std::string microseconds(int64_t ns) {
  std::string text = std::to_string(ns / 1000);
  const std::string rest = std::to_string(1000 + ns % 1000);
  return text + "." + rest.substr(1);
}

// One rank's events, separated by commas.
std::string events_of(const std::vector<Span>& spans, int64_t rank, int64_t origin) {
  std::unordered_map<const std::string*, std::string> heads;
  std::unordered_map<uint64_t, int64_t> threads;  // numbered in the order in which they appear
  std::string text = metadata("process_name", rank, 0, c10::str("rank ", rank));
  for (const Span& span : spans) {
    const auto [thread, is_new] = threads.try_emplace(span.thread, static_cast<int64_t>(threads.size()));
    if (is_new) text += ",\n" + metadata("thread_name", rank, thread->second, c10::str("thread ", thread->second));
    std::string& head = heads[span.name];
    if (head.empty()) {
      const auto [category, name] = parts_of(*span.name);
      head = c10::str(",\n{\"ph\":\"X\",\"pid\":", rank, ",\"cat\":", nlohmann::json(category).dump(),
                      ",\"name\":", nlohmann::json(name).dump());
    }
    text +=
        c10::str(head, ",\"tid\":", thread->second, ",\"ts\":", microseconds(std::max<int64_t>(0, span.begin - origin)),
                 ",\"dur\":", microseconds(span.end - span.begin), "}");
  }
  return text;
}

}  // namespace

struct Trace::State {
  std::string path;
  ProcessGroup world;
  std::optional<AtomicFile> file;  // on rank 0
  int64_t origin = 0;              // rank 0's begin
  std::optional<SpanRecorder> recorder;
};

Trace::Trace(std::string path, const ProcessGroup& world) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = std::move(path);
  state.world = world;
  run_on_all(world, "trace file", [&] {
    if (world.rank() == 0) state.file.emplace(state.path);
  });
  at::Tensor origin = at::scalar_tensor(now_ns(), at::kLong);
  world.broadcast_(origin, 0, "trace begin");
  state.origin = origin.item<int64_t>();
  state.recorder.emplace(kMostSpans);
}

Trace::~Trace() = default;

void Trace::write() {
  State& state = *state_;
  SpanRecorder& recorder = *state.recorder;
  recorder.stop();
  const std::vector<std::string> ranks =
      all_gather_text(events_of(recorder.spans(), state.world.rank(), state.origin), state.world, "trace");
  run_on_all(state.world, "trace file", [&] {
    if (!state.file) return;
    std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
    for (size_t rank = 0; rank < ranks.size(); ++rank) text += (rank == 0 ? "" : ",\n") + ranks[rank];
    text += "\n]}\n";
    state.file->write(text.data(), text.size());
    state.file->commit();
  });
  if (state.world.rank() != 0) return;
  log_line(LogLevel::info, c10::str("trace written to ", state.path, "; ui.perfetto.dev opens it"));
  if (recorder.left_out() > 0) {
    log_line(LogLevel::warn, c10::str("the trace holds the first ", kMostSpans, " spans of a rank; rank 0 had ",
                                      recorder.left_out(), " more: profile fewer steps"));
  }
}

}  // namespace optp

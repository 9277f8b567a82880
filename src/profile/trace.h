// A trace of what the ranks do, for ui.perfetto.dev and chrome://tracing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "parallel/mesh.h"

namespace optp {

/// Records this process while it exists: LibTorch's operators, each from its start to its end, and the spans that the
/// code names with RECORD_USER_SCOPE("category/name"). Every span has a category:
///
///   product                     matrix products and attention
///   communication               collectives, waits for other ranks included
///   optimizer, data, step, ...  as the span's name says
///   op                          any other operator
///
/// At most one at a time in a process. Make it before other threads run, and drop it when none does.
class Trace {
 public:
  /// What one rank records, at the most; later spans are only counted.
  static constexpr int64_t kMostSpans = 200'000;

  /// Begins to record. Rank 0 of `world` makes the file at once, under another name. Collective: throws c10::ValueError
  /// on every rank if it cannot be written.
  Trace(std::string path, const ProcessGroup& world);
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace();

  /// Ends the recording and writes the file: JSON in the Trace Event Format, a process for each rank, times in
  /// microseconds since rank 0 began. Collective. Hosts' clocks are taken to agree. Says so if spans were left out.
  void write();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace optp

// Ranks as threads of one process, for unit tests of everything that takes a process group.
#pragma once

#include <cstdint>
#include <functional>

#include "parallel/mesh.h"

namespace optp::testing {

/// Runs `body(mesh)` on tp x dp threads that are connected and check that they agree on each collective, and returns
/// when all are done. The first exception of any
/// rank is rethrown. GoogleTest's assertions work inside.
void run_ranks_over(Mesh::Comm comm, int64_t tp, int64_t dp, const std::function<void(const Mesh&)>& body);

/// The same twice, over Gloo and over shared memory.
void run_ranks(int64_t tp, int64_t dp, const std::function<void(const Mesh&)>& body);
inline void run_ranks(int64_t tp, const std::function<void(const Mesh&)>& body) { run_ranks(tp, 1, body); }

}  // namespace optp::testing

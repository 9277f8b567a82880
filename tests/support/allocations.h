// How much tensor memory a piece of code takes.
#pragma once

#include <cstdint>
#include <functional>

namespace optp::testing {

struct Allocations {
  int64_t peak = 0;  ///< the most bytes alive at once, of those allocated inside
  int64_t left = 0;  ///< bytes allocated and not freed
};

/// Runs `body`, and follows what it allocates in this thread until that is freed in any. `body` must not throw.
Allocations allocations_of(const std::function<void()>& body);

}  // namespace optp::testing

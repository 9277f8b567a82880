// How much tensor memory a piece of code leaves behind.
#pragma once

#include <cstdint>
#include <functional>

namespace optp {

/// Runs `body` and returns the bytes of tensor memory that it allocated in this thread and did not free: what is alive
/// because of it, whoever holds it.
int64_t bytes_left_by(const std::function<void()>& body);

}  // namespace optp

// What an error says, for tests of messages.
#pragma once

#include <c10/util/Exception.h>

#include <functional>
#include <string>

namespace optp::testing {

/// The sentence of the `Error` that `call` throws, "no error" if it throws nothing. An error of another type is not
/// caught.
template <typename Error = c10::Error>
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

}  // namespace optp::testing

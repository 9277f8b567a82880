// What the programs of tests share that run as ranks: how they end.
#pragma once

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>

#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

namespace optp::testing {

/// main of a program `name`, as the real one: an error is one sentence on standard error and status 3 where another
/// rank is the cause, 2 otherwise.
inline int run_program(const std::string& name, int argc, char** argv,
                       const std::function<int(const std::vector<std::string>&)>& run) {
  FLAGS_caffe2_log_level = c10::GLOG_FATAL;  // c10d prints stack traces for what reaches the user as one sentence
  const auto fail = [&](const std::string& message, int status) {
    std::cerr << name + ": " + message.substr(0, message.find('\n')) + "\n";
    return status;
  };
  try {
    return run({argv, argv + argc});
  } catch (const c10::DistError& error) {
    return fail(error.what_without_backtrace(), 3);
  } catch (const c10::Error& error) {
    return fail(error.what_without_backtrace(), 2);
  } catch (const std::exception& error) {
    return fail(error.what(), 2);
  }
}

}  // namespace optp::testing

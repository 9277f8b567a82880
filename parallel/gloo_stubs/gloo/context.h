// Stands in for gloo/context.h. LibTorch 2.13 ships Gloo compiled in, without its headers; c10d's public header names
// this class and calls setTimeout, so this much of it is declared here. Never construct one: c10d does.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo

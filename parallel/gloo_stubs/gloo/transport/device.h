// Stands in for gloo/transport/device.h: both classes are opaque to users of ProcessGroupGloo.hpp.
#pragma once

namespace gloo::transport {

class Device;

// Complete, because c10d's SendWork and RecvWork hold it in a std::unique_ptr; c10d creates and destroys it.
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = 0;
};

}  // namespace gloo::transport

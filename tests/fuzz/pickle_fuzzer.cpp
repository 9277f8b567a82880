// The pickle of a state dict.
#include "src/checkpoint/pickled_state_dict.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) { optp::read_pickled_state_dict(bytes, "file"); });
}

// config.json: whatever is accepted says the same after a round trip.
#include "modules/opt_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const auto config = optp::OptConfig::from_json(std::string(bytes), "config.json");
    const std::string text = config.to_json();
    if (optp::OptConfig::from_json(text, "config.json").to_json() != text) std::abort();
    config.num_parameters();
  });
}

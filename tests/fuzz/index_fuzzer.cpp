// model.safetensors.index.json and pytorch_model.bin.index.json: no file outside the folder is ever named.
#include "src/checkpoint/weight_index.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    for (const auto& [tensor, file] : optp::parse_weight_index(bytes, "index.json")) {
      if (file.empty() || file == ".." || file.find('/') != std::string::npos) std::abort();
    }
  });
}

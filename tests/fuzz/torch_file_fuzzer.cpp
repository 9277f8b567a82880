// A whole file of torch.save: archive, pickle, and where the tensors lie.
#include "src/checkpoint/torch_archive.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    unsigned sum = 0;
    for (const auto& [name, tensor] : optp::read_torch_archive(bytes, "file")) {
      for (const char byte : tensor.bytes) sum += byte;
    }
    volatile unsigned used = sum;
    static_cast<void>(used);
  });
}

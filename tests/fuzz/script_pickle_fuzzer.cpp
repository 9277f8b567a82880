// The pickle of a TorchScript module: no two tensors have a name.
#include <set>

#include "src/checkpoint/pickled_module.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    std::set<std::string> names;
    for (const auto& [name, tensor] : optp::read_pickled_module(bytes, "file").tensors) {
      optp::expect(names.insert(name).second && tensor.shape.size() == tensor.strides.size());
    }
  });
}

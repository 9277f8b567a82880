// A whole TorchScript file: archive, pickle, and where the tensors lie. Every element can be read.
#include "src/checkpoint/torch_archive.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

// One more than the last byte of a tensor's elements, counted from the first.
uint64_t extent_of(const StoredTensor& tensor) {
  uint64_t last = 0;
  uint64_t elements = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] == 0) return 0;
    const auto stride = tensor.is_contiguous() ? elements : static_cast<uint64_t>(tensor.strides[i]);
    last += static_cast<uint64_t>(tensor.shape[i] - 1) * stride;
    elements *= static_cast<uint64_t>(tensor.shape[i]);
  }
  return (last + 1) * c10::elementSize(tensor.dtype);
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    unsigned sum = 0;
    for (const auto& [name, tensor] : optp::read_script_archive(bytes, "file").tensors) {
      optp::expect(tensor.bytes.size() == optp::extent_of(tensor));
      for (const char byte : tensor.bytes) sum += byte;
    }
    volatile unsigned used = sum;
    static_cast<void>(used);
  });
}

// The header of a safetensors file: eight bytes of length, the JSON, the size of the data.
#include <cstring>

#include "src/checkpoint/safetensors_header.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const optp::SafetensorsFileParts parts = optp::split_safetensors_file(bytes, "file");
    const optp::SafetensorsHeader header = optp::parse_safetensors_header(parts.header, parts.data.size(), "file");
    // Every byte that a tensor claims can be read.
    unsigned sum = 0;
    for (const auto& [name, entry] : header.entries) {
      for (const char byte : parts.data.substr(entry.begin, entry.end - entry.begin)) sum += byte;
      if (parts.data.substr(entry.begin).size() < entry.end - entry.begin) std::abort();
    }
    volatile unsigned used = sum;
    static_cast<void>(used);
  });
}

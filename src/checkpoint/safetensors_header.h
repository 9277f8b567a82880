// The header of a safetensors file: which tensors it holds and where. Trusts nothing that the file says.
//
// A file is: length N of the header (8 bytes, little-endian), N bytes of JSON, the tensors' bytes. The JSON maps each
// name to {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, and "__metadata__" to strings.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace optp {

/// The format's own limit on the header's length, in bytes.
inline constexpr uint64_t kLongestSafetensorsHeader = 100'000'000;

struct SafetensorsHeader {
  struct Entry {
    c10::ScalarType dtype = c10::ScalarType::Undefined;
    std::vector<int64_t> shape;
    uint64_t begin = 0;  ///< first byte, counted from the end of the header
    uint64_t end = 0;    ///< one past the last byte
  };

  std::vector<std::string> names;  ///< in the header's order
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;
};

/// A whole file, cut in two.
struct SafetensorsFileParts {
  std::string_view header;  ///< its JSON
  std::string_view data;
};

/// Cuts the `bytes` of `file` (for messages) as its first eight bytes say. Throws c10::ValueError, one sentence.
SafetensorsFileParts split_safetensors_file(std::string_view bytes, const std::string& file);

/// Reads the JSON `text` of `file` (for messages), which `data_size` bytes of tensors follow. What it returns is sound:
/// the tensors fill those bytes without overlap or gap, each as large as its shape says, and no product overflows.
/// Throws c10::ValueError with one sentence that names the file, the tensor and the value that is wrong.
SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_size, const std::string& file);

/// "F32" for c10::kFloat, and so on; nothing for a type that the format or optp does not have.
std::optional<std::string> safetensors_dtype_name(c10::ScalarType dtype);

/// A name out of a file as messages show it: in quotes, on one line, and no longer than a line or two.
std::string shown_name(std::string_view name);

}  // namespace optp

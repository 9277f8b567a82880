#include "src/checkpoint/safetensors_header.h"

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>

namespace optp {
namespace {

constexpr size_t kMostDimensions = 64;  // ATen's limit
constexpr std::array<std::pair<const char*, c10::ScalarType>, 10> kSafetensorsDtypes = {{
    {"F64", c10::kDouble},
    {"F32", c10::kFloat},
    {"F16", c10::kHalf},
    {"BF16", c10::kBFloat16},
    {"I64", c10::kLong},
    {"I32", c10::kInt},
    {"I16", c10::kShort},
    {"I8", c10::kChar},
    {"U8", c10::kByte},
    {"BOOL", c10::kBool},
}};

template <typename... Parts>
[[noreturn]] void refuse_header(const std::string& file, const Parts&... parts) {
  C10_THROW_ERROR(ValueError, c10::str("cannot read ", file, ": ", parts..., "."));
}

// Receives the header's JSON piece by piece. The format nests three deep, so whatever nests deeper is refused where it
// starts, and no tree is ever built.
class HeaderReader {
 public:
  HeaderReader(const std::string& file, size_t length, SafetensorsHeader& header)
      : file_(file), length_(length), header_(header) {}

  bool null() { unexpected("null"); }
  bool boolean(bool value) { unexpected(value ? "true" : "false"); }
  bool number_integer(int64_t value) { unexpected(std::to_string(value)); }  // called for negative numbers alone
  bool number_float(double, const std::string& token) { unexpected("the number " + shown_name(token)); }
  bool binary(std::vector<uint8_t>&) { unexpected("binary data"); }  // JSON has none; the interface asks for it

  bool number_unsigned(uint64_t value) {
    if (place_ == Place::kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) unexpected(std::to_string(value));
      if (entry_->shape.size() == kMostDimensions) {
        refuse_header(file_, "tensor ", shown_name(name_), " has more than ", kMostDimensions, " dimensions");
      }
      entry_->shape.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::kOffsets) {
      if (offsets_++ == 2) refuse_header(file_, "tensor ", shown_name(name_), " has more than two data_offsets");
      (offsets_ == 1 ? entry_->begin : entry_->end) = value;
    } else {
      unexpected(std::to_string(value));
    }
    return true;
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) {
      header_.metadata[field_] = value;
    } else if (place_ == Place::kTensor && field_ == "dtype") {
      const auto* known = std::find_if(kSafetensorsDtypes.begin(), kSafetensorsDtypes.end(),
                                       [&](const auto& candidate) { return value == candidate.first; });
      if (known == kSafetensorsDtypes.end()) {
        refuse_header(file_, "tensor ", shown_name(name_), " has the dtype ", shown_name(value),
                      "; F64, F32, F16, BF16, I64, I32, I16, I8, U8 and BOOL can be read");
      }
      entry_->dtype = known->second;
    } else {
      unexpected("the string " + shown_name(value));
    }
    return true;
  }

  bool start_object(size_t) {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(std::string& key) {
    if (place_ == Place::kTop) {
      name_ = key;
      fields_.clear();
      if (key == "__metadata__") {
        if (std::exchange(metadata_seen_, true)) refuse_header(file_, "its header has the key \"__metadata__\" twice");
        return true;
      }
      const auto [place, is_new] = header_.entries.try_emplace(key);
      if (!is_new) refuse_header(file_, "its header has the tensor ", shown_name(key), " twice");
      entry_ = &place->second;
      header_.names.push_back(key);
      return true;
    }
    field_ = key;
    if (place_ == Place::kMetadata) {
      if (header_.metadata.contains(key)) refuse_header(file_, "its metadata has the key ", shown_name(key), " twice");
      return true;
    }
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      refuse_header(file_, "tensor ", shown_name(name_), " has the unknown field ", shown_name(key));
    }
    if (std::find(fields_.begin(), fields_.end(), key) != fields_.end()) {
      refuse_header(file_, "tensor ", shown_name(name_), " has the field \"", key, "\" twice");
    }
    fields_.push_back(key);
    return true;
  }

  bool start_array(size_t) {
    if (place_ != Place::kTensor || field_ == "dtype") unexpected("an array");
    place_ = field_ == "shape" ? Place::kShape : Place::kOffsets;
    offsets_ = 0;
    return true;
  }

  bool end_array() {
    if (place_ == Place::kOffsets && offsets_ != 2) {
      refuse_header(file_, "tensor ", shown_name(name_), " has ", offsets_, " data_offsets, not two");
    }
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() {
    if (place_ == Place::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (std::find(fields_.begin(), fields_.end(), field) == fields_.end()) {
          refuse_header(file_, "tensor ", shown_name(name_), " has no \"", field, "\"");
        }
      }
    }
    place_ = Place::kTop;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) {
    const bool encoding = std::string_view(error.what()).find("UTF-8") != std::string_view::npos;
    refuse_header(file_, "its header is not valid ", encoding ? "UTF-8" : "JSON", " at byte ", position, " of ",
                  length_);
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  [[noreturn]] void unexpected(const std::string& what) const {
    switch (place_) {
      case Place::kStart:
        refuse_header(file_, "its header is ", what, ", not an object");
      case Place::kTop:
        refuse_header(file_, name_ == "__metadata__" ? "" : "tensor ", shown_name(name_), " is ", what,
                      ", not an object");
      case Place::kMetadata:
        refuse_header(file_, "the metadata ", shown_name(field_), " is ", what, ", not a string");
      case Place::kTensor:
        refuse_header(file_, "the ", field_, " of tensor ", shown_name(name_), " is ", what, ", not ",
                      field_ == "dtype" ? "a string" : "an array");
      default:
        refuse_header(file_, "the ", field_, " of tensor ", shown_name(name_), " holds ", what,
                      ", not a whole number below 2^63");
    }
  }

  const std::string& file_;
  size_t length_;
  SafetensorsHeader& header_;
  Place place_ = Place::kStart;
  std::string name_;   // the key in the header
  std::string field_;  // the key in that object
  SafetensorsHeader::Entry* entry_ = nullptr;
  std::vector<std::string> fields_;  // keys seen in this tensor's object
  size_t offsets_ = 0;
  bool metadata_seen_ = false;
};

void check_tensor_size(const std::string& name, const SafetensorsHeader::Entry& entry, uint64_t data_size,
                       const std::string& file) {
  const c10::ArrayRef<int64_t> shape(entry.shape);
  if (entry.begin > entry.end) {
    refuse_header(file, "tensor ", shown_name(name), " has the descending data_offsets ", entry.begin, ", ", entry.end);
  }
  if (entry.end > data_size) {
    refuse_header(file, "tensor ", shown_name(name), " ends at byte ", entry.end,
                  " of the data, of which the file has ", data_size, " (is the file truncated?)");
  }
  // Dimensions of 0 count as 1 here: strides multiply the others and must not overflow either.
  int64_t largest = static_cast<int64_t>(c10::elementSize(entry.dtype));
  bool empty = false;
  for (const int64_t size : shape) {
    empty = empty || size == 0;
    if (__builtin_mul_overflow(largest, std::max<int64_t>(size, 1), &largest)) {
      refuse_header(file, "tensor ", shown_name(name), " has the impossible shape ", shape);
    }
  }
  const uint64_t needed = empty ? 0 : static_cast<uint64_t>(largest);
  if (entry.end - entry.begin != needed) {
    refuse_header(file, "tensor ", shown_name(name), " of shape ", shape, " and dtype ",
                  *safetensors_dtype_name(entry.dtype), " needs ", needed, " bytes, but its data_offsets ", entry.begin,
                  ", ", entry.end, " hold ", entry.end - entry.begin);
  }
}

void check_tensor_layout(const SafetensorsHeader& header, uint64_t data_size, const std::string& file) {
  std::vector<std::tuple<uint64_t, uint64_t, std::string_view>> order;
  order.reserve(header.entries.size());
  for (const auto& [name, entry] : header.entries) order.emplace_back(entry.begin, entry.end, name);
  std::sort(order.begin(), order.end());
  uint64_t position = 0;
  for (const auto& [begin, end, name] : order) {
    if (begin < position) {
      refuse_header(file, "tensor ", shown_name(name), " starts at byte ", begin,
                    " of the data, inside another tensor");
    }
    if (begin > position) {
      refuse_header(file, "bytes ", position, " to ", begin, " of the data, before tensor ", shown_name(name),
                    ", belong to no tensor");
    }
    position = end;
  }
  if (position != data_size) {
    refuse_header(file, "the last ", data_size - position, " of its ", data_size, " bytes of data belong to no tensor");
  }
}

}  // namespace

SafetensorsFileParts split_safetensors_file(std::string_view bytes, const std::string& file) {
  uint64_t length = 0;
  if (bytes.size() < sizeof(length)) {
    refuse_header(file, "it has ", bytes.size(), " bytes, too few for a safetensors file");
  }
  std::memcpy(&length, bytes.data(), sizeof(length));
  bytes.remove_prefix(sizeof(length));
  if (length > kLongestSafetensorsHeader) {
    refuse_header(file, "its header would be ", length, " bytes long, above the limit of ", kLongestSafetensorsHeader,
                  " (is it a safetensors file at all?)");
  }
  if (length > bytes.size()) {
    refuse_header(file, "its header would be ", length, " bytes long, but only ", bytes.size(),
                  " follow (is the file truncated?)");
  }
  return {bytes.substr(0, length), bytes.substr(length)};
}

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_size, const std::string& file) {
  SafetensorsHeader header;
  if (text.empty() || text.front() != '{') refuse_header(file, "its header does not begin with '{'");
  // The parser takes a zero byte for the end of the text.
  const size_t zero = text.find('\0');
  if (zero != std::string_view::npos)
    refuse_header(file, "its header is not valid JSON at byte ", zero, " of ", text.size());
  HeaderReader reader(file, text.size(), header);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  for (const auto& [name, entry] : header.entries) check_tensor_size(name, entry, data_size, file);
  check_tensor_layout(header, data_size, file);
  return header;
}

std::optional<std::string> safetensors_dtype_name(c10::ScalarType dtype) {
  for (const auto& [name, type] : kSafetensorsDtypes) {
    if (type == dtype) return name;
  }
  return std::nullopt;
}

std::string shown_name(std::string_view name) {
  constexpr size_t kLongest = 200;
  size_t shown = std::min(name.size(), kLongest);
  // Never cut a character in two: bytes 10xxxxxx continue one.
  while (shown < name.size() && shown > 0 && (static_cast<unsigned char>(name[shown]) & 0xC0) == 0x80) --shown;
  std::string text = "\"";
  for (const char byte : name.substr(0, shown)) {
    const auto code = static_cast<unsigned char>(byte);
    text += code < 0x20 || code == 0x7F ? '?' : byte;
  }
  return text + (shown < name.size() ? "...\"" : "\"");
}

}  // namespace optp

#include "src/checkpoint/safetensors.h"

#include <utility>

#include "src/checkpoint/safetensors_header.h"

namespace optp {

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : TensorFile(path) {
  const auto [text, data] = split_safetensors_file(file().bytes(), path.string());
  SafetensorsHeader header = parse_safetensors_header(text, data.size(), path.string());
  for (const std::string& name : header.names) {
    const SafetensorsHeader::Entry& entry = header.entries.at(name);
    add(name, {entry.dtype, entry.shape, {}, data.substr(entry.begin, entry.end - entry.begin)});
  }
  metadata_ = std::move(header.metadata);
}

}  // namespace optp

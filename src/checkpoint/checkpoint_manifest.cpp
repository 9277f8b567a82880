#include "src/checkpoint/checkpoint_manifest.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>
#include <system_error>

#include "src/checkpoint/crc64.h"
#include "src/checkpoint/mapped_file.h"
#include "src/checkpoint/safetensors_header.h"
#include "src/version.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kLongestManifest = size_t{256} << 20;
constexpr int kDeepestManifest = 64;
constexpr int64_t kLargestDegree = 1'000'000;

// The manifest ends with its own checksum, which covers everything before these bytes.
std::string manifest_trailer(std::string_view before) {
  return ",\n  \"crc64\": \"" + crc64_text(crc64(before)) + "\"\n}\n";
}

Json parse_part(const std::string& text, const char* what) {
  if (text.empty()) return nullptr;
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    C10_THROW_ERROR(ValueError,
                    c10::str("a checkpoint's ", what, " must be JSON, and this is not: ", shown_name(text), "."));
  }
}

// Every accessor of this class throws one sentence that names the file and the key.
class ManifestReader {
 public:
  explicit ManifestReader(std::string path) : path_(std::move(path)) {}

  template <typename... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    C10_THROW_ERROR(ValueError, c10::str("cannot read ", path_, ": ", parts..., "."));
  }

  Json parse(std::string_view text) const {
    const auto check_depth = [&](int depth, Json::parse_event_t, Json&) {
      if (depth > kDeepestManifest) refuse("it nests more than ", kDeepestManifest, " levels deep");
      return true;
    };
    try {
      return Json::parse(text.begin(), text.end(), check_depth);
    } catch (const Json::parse_error& error) {
      refuse("it is not valid JSON at byte ", error.byte);
    } catch (const Json::exception&) {
      refuse("it is not valid JSON");
    }
  }

  const Json& member(const Json& object, const char* key) const {
    if (!object.is_object()) refuse("it holds ", shown_name(object.dump()), " where an object must be");
    const auto found = object.find(key);
    if (found == object.end()) refuse("it has no \"", key, "\"");
    return *found;
  }

  std::string string(const Json& object, const char* key) const {
    const Json& value = member(object, key);
    if (!value.is_string()) refuse("its \"", key, "\" is ", shown(value), ", not a string");
    return value.get<std::string>();
  }

  int64_t integer(const Json& object, const char* key, int64_t least, int64_t most) const {
    const Json& value = member(object, key);
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) ||
        value.get<int64_t>() < least || value.get<int64_t>() > most) {
      refuse("its \"", key, "\" is ", shown(value), ", not a whole number from ", least, " to ", most);
    }
    return value.get<int64_t>();
  }

  static std::string shown(const Json& value) {
    return value.is_string() ? shown_name(value.get<std::string>()) : shown_name(value.dump());
  }

 private:
  std::string path_;
};

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

CheckpointManifest::File read_file_entry(const ManifestReader& reader, const Json& entry) {
  CheckpointManifest::File file;
  file.name = reader.string(entry, "name");
  if (!is_plain_name(file.name)) {
    reader.refuse("it names the file ", shown_name(file.name), ", which is not a plain name inside the folder");
  }
  const std::string part = reader.string(entry, "part");
  if (part == checkpoint_part_name(CheckpointPart::optimizer_state)) {
    file.part = CheckpointPart::optimizer_state;
  } else if (part != checkpoint_part_name(CheckpointPart::parameters)) {
    reader.refuse("it says that ", shown_name(file.name), " holds ", shown_name(part),
                  ", which is neither \"parameters\" nor \"optimizer_state\"");
  }
  file.rank = reader.integer(entry, "rank", 0, kLargestDegree - 1);
  file.size = static_cast<uint64_t>(reader.integer(entry, "size", 1, INT64_MAX));
  const std::string checksum = reader.string(entry, "crc64");
  uint64_t value = 0;
  if (checksum.size() != 16 || checksum.find_first_not_of("0123456789abcdef") != std::string::npos ||
      std::from_chars(checksum.data(), checksum.data() + checksum.size(), value, 16).ec != std::errc()) {
    reader.refuse("the checksum of ", shown_name(file.name), " is ", shown_name(checksum),
                  ", not 16 hexadecimal digits");
  }
  file.crc64 = value;
  return file;
}

void read_file_entries(const ManifestReader& reader, const Json& entries, CheckpointManifest& manifest) {
  if (!entries.is_array()) reader.refuse("its \"files\" is ", ManifestReader::shown(entries), ", not a list");
  for (const Json& entry : entries) {
    CheckpointManifest::File file = read_file_entry(reader, entry);
    for (const CheckpointManifest::File& other : manifest.files) {
      if (other.name == file.name) reader.refuse("it names the file ", shown_name(file.name), " twice");
    }
    manifest.files.push_back(std::move(file));
  }
  for (const CheckpointPart part : {CheckpointPart::parameters, CheckpointPart::optimizer_state}) {
    const auto files = manifest.files_of(part);
    if (part == CheckpointPart::optimizer_state && files.empty()) continue;
    for (size_t rank = 0; rank < files.size(); ++rank) {
      if (files[rank].rank != static_cast<int64_t>(rank)) {
        reader.refuse("its ", checkpoint_part_name(part), " come from the ranks out of order at ",
                      shown_name(files[rank].name));
      }
    }
    if (static_cast<int64_t>(files.size()) != manifest.tp) {
      reader.refuse("it names ", files.size(), " files of ", checkpoint_part_name(part), " for ", manifest.tp,
                    " tensor-parallel ranks");
    }
  }
}

// Before anything else is believed: it is our format, of a version we know, and as it was written.
void check_manifest_identity(const ManifestReader& reader, const Json& json, std::string_view text) {
  const std::string format = reader.string(json, "format");
  if (format != kCheckpointFormat) {
    reader.refuse("its format is ", shown_name(format), ", not \"", kCheckpointFormat, "\"");
  }
  const size_t trailer = manifest_trailer("").size();
  const bool intact = text.size() > trailer &&
                      text.substr(text.size() - trailer) == manifest_trailer(text.substr(0, text.size() - trailer));
  const int64_t version = reader.integer(json, "version", 1, INT64_MAX);
  if (version > kCheckpointVersion) {
    reader.refuse(
        "it has version ", version, " and this optp reads versions up to ", kCheckpointVersion,
        intact ? "; use a newer optp" : "; use a newer optp (or it was altered: its checksum does not match)");
  }
  if (!intact) reader.refuse("it was altered after it was written: its checksum does not match");
}

}  // namespace

const char* checkpoint_part_name(CheckpointPart part) {
  return part == CheckpointPart::parameters ? "parameters" : "optimizer_state";
}

std::string checkpoint_file_name(CheckpointPart part, int64_t rank, int64_t tp) {
  char numbers[64];
  std::snprintf(numbers, sizeof(numbers), "-%05lld-of-%05lld.safetensors", static_cast<long long>(rank),
                static_cast<long long>(tp));
  return checkpoint_part_name(part) + std::string(numbers);
}

std::vector<CheckpointManifest::File> CheckpointManifest::files_of(CheckpointPart part) const {
  std::vector<File> found;
  for (const File& file : files) {
    if (file.part == part) found.push_back(file);
  }
  return found;
}

std::string to_json(const CheckpointManifest& manifest) {
  Json json;
  json["format"] = kCheckpointFormat;
  json["version"] = kCheckpointVersion;
  json["written_by"] = std::string("optp ") + kVersion;
  json["mesh"] = {{"tp", manifest.tp}, {"dp", manifest.dp}};
  json["model_config"] = parse_part(manifest.model_config, "model configuration");
  json["trainer_state"] = parse_part(manifest.trainer_state, "trainer state");
  json["files"] = Json::array();
  for (const CheckpointManifest::File& file : manifest.files) {
    json["files"].push_back({{"name", file.name},
                             {"part", checkpoint_part_name(file.part)},
                             {"rank", file.rank},
                             {"size", file.size},
                             {"crc64", crc64_text(file.crc64)}});
  }
  std::string text = json.dump(2);
  text.resize(text.size() - 2);  // "\n}", which the trailer brings
  return text + manifest_trailer(text);
}

CheckpointManifest read_checkpoint_manifest(const fs::path& folder) {
  std::error_code ignored;
  TORCH_CHECK_VALUE(fs::is_directory(folder, ignored), folder.string(),
                    " is not a folder; name that of a training checkpoint.");
  const fs::path path = folder / kCheckpointManifestName;
  TORCH_CHECK_VALUE(fs::exists(path, ignored), folder.string(), " is no whole training checkpoint: it has no ",
                    kCheckpointManifestName, ".");
  const MappedFile file(path);
  const ManifestReader reader(path.string());
  if (file.bytes().size() > kLongestManifest) {
    reader.refuse("it has ", file.bytes().size(), " bytes, above the limit of ", kLongestManifest);
  }
  const Json json = reader.parse(file.bytes());
  check_manifest_identity(reader, json, file.bytes());
  CheckpointManifest manifest;
  const Json& mesh = reader.member(json, "mesh");
  manifest.tp = reader.integer(mesh, "tp", 1, kLargestDegree);
  manifest.dp = reader.integer(mesh, "dp", 1, kLargestDegree);
  for (const auto& [key, text] :
       {std::pair{"model_config", &manifest.model_config}, {"trainer_state", &manifest.trainer_state}}) {
    const Json& value = reader.member(json, key);
    if (!value.is_null()) *text = value.dump(2);
  }
  read_file_entries(reader, reader.member(json, "files"), manifest);
  return manifest;
}

void check_checkpoint_files(const CheckpointManifest& manifest, const fs::path& folder) {
  for (const CheckpointManifest::File& file : manifest.files) {
    const fs::path path = folder / file.name;
    std::error_code error;
    const uintmax_t size = fs::file_size(path, error);
    TORCH_CHECK_VALUE(!error, "cannot read ", path.string(), ", which ", kCheckpointManifestName,
                      " names: ", error.message(), ".");
    TORCH_CHECK_VALUE(size == file.size, path.string(), " has ", size, " bytes, but ", kCheckpointManifestName,
                      " says ", file.size, ": it was ", size < file.size ? "truncated" : "altered",
                      " or belongs to another checkpoint.");
  }
}

bool has_all_checkpoint_files(const fs::path& folder) {
  try {
    check_checkpoint_files(read_checkpoint_manifest(folder), folder);
    return true;
  } catch (const c10::ValueError&) {
    return false;
  }
}

}  // namespace optp

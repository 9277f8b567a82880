#include "src/checkpoint/weight_index.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include <set>

#include "src/checkpoint/mapped_file.h"
#include "src/checkpoint/safetensors_header.h"

namespace optp {
namespace {

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// The whole index, none of whose tensors is mapped twice.
nlohmann::json parse_index_json(std::string_view text, const std::string& path) {
  constexpr int kDeepest = 8;
  std::string section;
  std::set<std::string> mapped;
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    TORCH_CHECK_VALUE(depth <= kDeepest, "cannot read ", path, ": it nests more than ", kDeepest, " levels deep.");
    if (event != nlohmann::json::parse_event_t::key) return true;
    const auto& key = value.get_ref<const std::string&>();
    if (depth == 1) section = key;
    TORCH_CHECK_VALUE(depth != 2 || section != "weight_map" || mapped.insert(key).second, "cannot read ", path,
                      ": its weight_map has ", shown_name(key), " twice.");
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::parse_error& error) {
    C10_THROW_ERROR(ValueError, c10::str("cannot read ", path, ": it is not valid JSON at byte ", error.byte, "."));
  } catch (const nlohmann::json::exception&) {
    C10_THROW_ERROR(ValueError, c10::str("cannot read ", path, ": it is not valid JSON."));
  }
}

}  // namespace

std::map<std::string, std::string> parse_weight_index(std::string_view text, const std::string& path) {
  TORCH_CHECK_VALUE(text.size() <= kLongestSafetensorsHeader, "cannot read ", path, ": it has ", text.size(),
                    " bytes, above the limit of ", kLongestSafetensorsHeader, ".");
  const nlohmann::json index = parse_index_json(text, path);
  TORCH_CHECK_VALUE(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object() &&
                        !index["weight_map"].empty(),
                    "cannot read ", path, ": it has no \"weight_map\" that maps tensors to files.");
  std::map<std::string, std::string> files;
  for (const auto& [name, value] : index["weight_map"].items()) {
    TORCH_CHECK_VALUE(value.is_string(), "cannot read ", path, ": it maps ", shown_name(name),
                      " to something that is not a string.");
    const auto& file_name = value.get_ref<const std::string&>();
    TORCH_CHECK_VALUE(is_plain_file_name(file_name), "cannot read ", path, ": it maps ", shown_name(name), " to ",
                      shown_name(file_name), ", which is not a plain file name inside the folder.");
    files.emplace(name, file_name);
  }
  return files;
}

std::map<std::string, std::string> read_weight_index(const std::filesystem::path& path) {
  return parse_weight_index(MappedFile(path).bytes(), path.string());
}

}  // namespace optp

// model.safetensors.index.json and pytorch_model.bin.index.json: which file of a Hugging Face directory holds which
// tensor.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace optp {

/// Tensor name -> file name, as the index `text` maps them, or the one at `path`, which stands in the messages. Every
/// file name is a plain one: nothing in it leads out of the folder. Throws c10::ValueError that names the path and the
/// entry that is wrong.
std::map<std::string, std::string> parse_weight_index(std::string_view text, const std::string& path);
std::map<std::string, std::string> read_weight_index(const std::filesystem::path& path);

}  // namespace optp

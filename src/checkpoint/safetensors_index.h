// model.safetensors.index.json: which file of a Hugging Face directory holds which tensor.
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace optp {

/// Tensor name -> file name, as the index at `path` maps them. Every file name is a plain one: nothing in it leads out
/// of the folder. Throws c10::ValueError that names the path and the entry that is wrong.
std::map<std::string, std::string> read_safetensors_index(const std::filesystem::path& path);

}  // namespace optp

// What TorchScript pickles for a module that optp exported. It is read as data: no class is made, and of the code that
// lies beside it in the archive nothing is compiled. Needs nothing of LibTorch but its types and errors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/checkpoint/pickled_state_dict.h"

namespace optp {

/// What the attributes `format` and `version` of an exported module say.
inline constexpr std::string_view kTorchScriptFormat = "optp-torchscript";
inline constexpr int64_t kTorchScriptVersion = 1;

struct PickledModule {
  std::string_view config;                                     ///< the text of config.json
  std::vector<std::pair<std::string, PickledTensor>> tensors;  ///< by their dotted names, in the module's order
};

/// Reads the pickle `bytes` (the file data.pkl of a TorchScript archive) of a module as write_torchscript makes it.
/// Other attributes than tensors, submodules and those that say what the file is are left out. The tensors are sound in
/// the sense of read_pickled_state_dict. Views point into `bytes`. `file` stands in the messages. Throws
/// c10::ValueError, one sentence, also when the module is not optp's or of a newer version.
PickledModule read_pickled_module(std::string_view bytes, const std::string& file);

}  // namespace optp

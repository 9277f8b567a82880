// A state dict that torch.save wrote (pytorch_model.bin), without running anything that is in it. Needs nothing of
// LibTorch but its types and errors.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/checkpoint/stored_tensor.h"

namespace optp {

/// The tensors in the zip-and-pickle format that torch.save has written since PyTorch 1.6, in the order of the dict;
/// views into `bytes`. They may share storages and have any strides. `file` stands in the messages. Throws
/// c10::ValueError, one sentence, for a file that is damaged, lies about itself, wants to run code, is in the older
/// format, or was written on a big-endian machine.
std::vector<std::pair<std::string, StoredTensor>> read_torch_archive(std::string_view bytes, const std::string& file);

}  // namespace optp

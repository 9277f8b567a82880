// What torch.save pickles for a state dict: an OrderedDict of tensors. Nothing in a pickle is ever run: it is read as
// data, and whatever asks for more than tensors and plain containers is refused by its name. Needs nothing of LibTorch
// but its types and errors.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace optp {

/// A tensor as a pickle describes it: a window of a storage whose bytes lie elsewhere.
struct PickledTensor {
  std::string_view name;
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  std::string_view storage;   ///< the storage's key: its file in the archive
  uint64_t storage_size = 0;  ///< elements of the storage
  int64_t offset = 0;         ///< first element
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  ///< in elements
};

/// Reads the pickle `bytes` (the file data.pkl of a torch.save archive) of a dict whose keys are strings and whose
/// values are tensors or parameters. Every size and stride is 0 or more, no product overflows, and every element lies
/// in its storage as far as storage_size tells. Views point into `bytes`. `file` stands in the messages. Throws
/// c10::ValueError, one sentence.
std::vector<PickledTensor> read_pickled_state_dict(std::string_view bytes, const std::string& file);

}  // namespace optp

// What torch.save and TorchScript write: a zip archive with a pickle and the storages of its tensors. Nothing that is
// in it is run. Needs nothing of LibTorch but its types and errors.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/checkpoint/pickled_module.h"
#include "src/checkpoint/pickled_state_dict.h"
#include "src/checkpoint/stored_tensor.h"
#include "src/checkpoint/zip_archive.h"

namespace optp {

/// Views into the archive's bytes, which must outlive it. Errors are c10::ValueError, one sentence.
class TorchArchive {
 public:
  /// `file` stands in the messages. Throws for a file that is damaged, lies about itself, is in the format that
  /// torch.save wrote before PyTorch 1.6, or was written on a big-endian machine.
  TorchArchive(std::string_view bytes, std::string file);

  /// Whether it holds TorchScript: code beside the pickle.
  bool is_script() const { return archive_.contains(root_ + "constants.pkl"); }
  std::string_view pickle() const { return archive_.content(root_ + "data.pkl"); }
  /// The tensor's part of its storage. `name` stands in the messages.
  StoredTensor tensor(const PickledTensor& pickled, std::string_view name) const;

 private:
  std::string file_;
  ZipArchive archive_;
  std::string root_;  // the archive's only folder
};

/// The tensors of a state dict that torch.save wrote (pytorch_model.bin), in the order of the dict. They may share
/// storages and have any strides.
std::vector<std::pair<std::string, StoredTensor>> read_torch_archive(std::string_view bytes, const std::string& file);

/// A TorchScript file that optp wrote.
struct ScriptArchive {
  std::string config;  ///< the text of config.json
  std::vector<std::pair<std::string, StoredTensor>> tensors;
};
ScriptArchive read_script_archive(std::string_view bytes, const std::string& file);

}  // namespace optp

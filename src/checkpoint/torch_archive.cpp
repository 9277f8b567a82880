#include "src/checkpoint/torch_archive.h"

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <cstdint>
#include <utility>

#include "src/checkpoint/safetensors_header.h"

namespace optp {
namespace {

// The number with which torch.save's old format begins, pickled.
constexpr std::string_view kOldFormat = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
constexpr std::string_view kPickle = "/data.pkl";

// The archive's only folder.
std::string root_of(const ZipArchive& archive, const std::string& file) {
  std::string root;
  for (const std::string& name : archive.names()) {
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    TORCH_CHECK_VALUE(root.empty(), "cannot read ", file, ": it has two pickles, ", shown_name(root + "data.pkl"),
                      " and ", shown_name(name), ".");
    root = name.substr(0, name.size() - kPickle.size() + 1);
  }
  TORCH_CHECK_VALUE(!root.empty(), "cannot read ", file,
                    ": it is a zip archive without a data.pkl, so torch.save did not write it.");
  return root;
}

// Whether the strides are those of a row-major tensor without gaps.
bool row_major(c10::ArrayRef<int64_t> shape, c10::ArrayRef<int64_t> strides) {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] > 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

// Refuses what cannot be a zip archive of torch's.
std::string_view zip_of(std::string_view bytes, const std::string& file) {
  TORCH_CHECK_VALUE(!bytes.starts_with(kOldFormat), "cannot read ", file,
                    ": it is in the format that torch.save wrote before PyTorch 1.6; load it with torch.load and save "
                    "it again.");
  TORCH_CHECK_VALUE(is_zip(bytes), "cannot read ", file,
                    ": it does not begin like a zip archive, so torch.save did not write it.");
  return bytes;
}

}  // namespace

TorchArchive::TorchArchive(std::string_view bytes, std::string file)
    : file_(std::move(file)), archive_(zip_of(bytes, file_), file_), root_(root_of(archive_, file_)) {
  if (archive_.contains(root_ + "byteorder")) {
    const std::string_view order = archive_.content(root_ + "byteorder");
    TORCH_CHECK_VALUE(order == "little", "cannot read ", file_, ": its numbers have the byte order ", shown_name(order),
                      ", not \"little\"; save it again on a little-endian machine.");
  }
}

StoredTensor TorchArchive::tensor(const PickledTensor& pickled, std::string_view name) const {
  const std::string entry = "data/" + std::string(pickled.storage);
  TORCH_CHECK_VALUE(archive_.contains(root_ + entry), "cannot read ", file_, ": it has no entry ", shown_name(entry),
                    ", the storage of tensor ", shown_name(name), ".");
  const std::string_view storage = archive_.content(root_ + entry);
  const uint64_t element = c10::elementSize(pickled.dtype);
  TORCH_CHECK_VALUE(storage.size() / element >= pickled.storage_size, "cannot read ", file_, ": tensor ",
                    shown_name(name), " needs a storage of ", pickled.storage_size, " elements of ", element,
                    " bytes, but entry ", shown_name(entry), " has ", storage.size(), " bytes.");
  StoredTensor tensor{.dtype = pickled.dtype, .shape = pickled.shape, .strides = {}, .bytes = {}};
  if (c10::multiply_integers(pickled.shape) == 0) return tensor;
  int64_t last = 0;  // the last element, counted from the first
  for (size_t i = 0; i < pickled.shape.size(); ++i) last += (pickled.shape[i] - 1) * pickled.strides[i];
  tensor.bytes = storage.substr(pickled.offset * element, (last + 1) * element);
  if (!row_major(pickled.shape, pickled.strides)) {
    // Elements that do not follow each other are read as numbers in place, which asks for an address that fits and,
    // of a bool, for 0 or 1.
    TORCH_CHECK_VALUE(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % element == 0 && tensor.dtype != c10::kBool,
                      "cannot read ", file_, ": tensor ", shown_name(name), " has the strides ",
                      c10::ArrayRef<int64_t>(pickled.strides), "; save it again after .contiguous().");
    tensor.strides = pickled.strides;
  }
  return tensor;
}

std::vector<std::pair<std::string, StoredTensor>> read_torch_archive(std::string_view bytes, const std::string& file) {
  const TorchArchive archive(bytes, file);
  TORCH_CHECK_VALUE(!archive.is_script(), "cannot read ", file,
                    ": it is a TorchScript file, not one of weights alone.");
  std::vector<std::pair<std::string, StoredTensor>> tensors;
  for (const PickledTensor& pickled : read_pickled_state_dict(archive.pickle(), file)) {
    tensors.emplace_back(pickled.name, archive.tensor(pickled, pickled.name));
  }
  return tensors;
}

ScriptArchive read_script_archive(std::string_view bytes, const std::string& file) {
  const TorchArchive archive(bytes, file);
  TORCH_CHECK_VALUE(archive.is_script(), "cannot read ", file,
                    ": it holds no TorchScript; weights alone need a config.json beside them and the ending .bin.");
  const PickledModule module = read_pickled_module(archive.pickle(), file);
  ScriptArchive script{.config = std::string(module.config), .tensors = {}};
  for (const auto& [name, pickled] : module.tensors) script.tensors.emplace_back(name, archive.tensor(pickled, name));
  return script;
}

}  // namespace optp

// A file of named tensors, memory-mapped, so that a rank reads from the disk only the ranges it asks for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "src/checkpoint/mapped_file.h"
#include "src/checkpoint/stored_tensor.h"

namespace optp {

/// An open file. Everything it says about itself is checked when it is opened; reading threads may share it.
/// Errors are c10::ValueError: one sentence with the file, the tensor and the value that is wrong.
class TensorFile {
 public:
  virtual ~TensorFile() = default;
  TensorFile(TensorFile&&) = default;
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;
  TensorFile& operator=(TensorFile&&) = delete;

  const std::filesystem::path& path() const { return file_.path(); }
  /// Names in the file's order.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(const std::string& name) const { return tensors_.contains(name); }

  const StoredTensor& tensor(const std::string& name) const;
  at::ScalarType dtype(const std::string& name) const { return tensor(name).dtype; }
  const std::vector<int64_t>& shape(const std::string& name) const { return tensor(name).shape; }

  /// The tensor as stored, in memory of its own.
  at::Tensor read(const std::string& name) const;

  /// Copies indices [start, start + size) of dimension `dim` into `out`, a contiguous CPU tensor of that shape; with
  /// dim = -1 the whole tensor, whatever start and size. Floating-point values convert to the dtype of `out`; other
  /// dtypes must be the same. Touches no page outside the range and makes no copy of the range. `out` may be a
  /// parameter: autograd does not see the change.
  void read_range(const std::string& name, int64_t dim, int64_t start, int64_t size, const at::Tensor& out) const;

 protected:
  explicit TensorFile(const std::filesystem::path& path);

  void add(const std::string& name, StoredTensor tensor);
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  std::vector<std::string> names_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace optp

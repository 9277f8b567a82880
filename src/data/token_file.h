// Token ids in a file, as `optp tokenize` writes them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/checkpoint/mapped_file.h"
#include "src/data/npy_header.h"

namespace optp {

/// A one-dimensional NumPy array of uint16 or uint32, memory-mapped: any size, and pages are read when they are needed.
/// Errors are c10::ValueError that names the file. Reading is safe from several threads; asking for the content's
/// hash or largest id the first time is not.
class TokenFile {
 public:
  /// Opens it and checks its header against its size. `text`: what the ids were made of, which messages name where the
  /// file itself is one that the user never sees.
  explicit TokenFile(std::filesystem::path path, std::filesystem::path text = {});

  const std::filesystem::path& path() const { return file_.path(); }
  /// What the user calls it: the text, or else the file.
  const std::filesystem::path& name() const { return text_.empty() ? path() : text_; }
  int64_t size() const { return header_.count; }

  /// Ids first .. first + count - 1, which must lie in the file: int64 [count].
  at::Tensor read(int64_t first, int64_t count) const;
  /// The same into memory that has room for them.
  void read(int64_t first, int64_t count, int64_t* out) const;

  /// -1 for a file without ids. The first call of either reads the whole file, a few GB a second.
  int64_t largest_id() const { return content().largest_id; }
  /// XXH64 of all ids, as they are stored.
  uint64_t hash() const { return content().hash; }

 private:
  struct Content {
    int64_t largest_id;
    uint64_t hash;
  };
  void check_range(int64_t first, int64_t count) const;
  const Content& content() const;

  MappedFile file_;
  std::filesystem::path text_;
  NpyHeader header_;
  mutable std::optional<Content> content_;
};

}  // namespace optp

// A file that appears under its name only when it is whole.
#pragma once

#include <cstddef>
#include <filesystem>

namespace optp {

/// Call order: construct, write as often as needed, commit once. Destroyed without commit, it leaves no trace, and a
/// file that had the name before keeps its content. Every error is a c10::ValueError that names the path and the
/// reason.
class AtomicFile {
 public:
  /// Creates a temporary file in `path`'s folder, which must exist and be writable. `path` may be a
  /// regular file, and nothing else that exists.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t size);
  /// Replaces bytes that were written before, from `offset` on.
  void overwrite(size_t offset, const void* data, size_t size);

  /// Flushes to the disk and takes the name, replacing what had it.
  void commit();

 private:
  void check(bool succeeded) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

}  // namespace optp

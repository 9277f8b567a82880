// A file that appears under its name only when it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace optp {

/// Call order: construct, write as often as needed, commit once. Destroyed without commit, it leaves no trace, and a
/// file that had the name before keeps its content. Every error is a c10::ValueError that names the path and the
/// reason.
class AtomicFile {
 public:
  /// Creates a temporary file in `path`'s folder, which must exist and be writable. `path` may be a
  /// regular file, and nothing else that exists. `mode`: its permissions, less what the process's umask takes away;
  /// 0600 for what holds a run's state.
  explicit AtomicFile(std::filesystem::path path, unsigned mode = 0666);
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
  uint64_t size_ = 0;           // written so far
  uint64_t flushing_from_ = 0;  // the disk has been told of all before, and
  uint64_t flushed_to_ = 0;     // has all before that
};

/// Removes from `folder` what writers left behind that were killed; not what is being written, nor anything where the
/// file system knows no locks.
void remove_abandoned_files(const std::filesystem::path& folder);

/// Flushes a folder's entries, so that new names in it survive a power cut. Some file systems cannot; files are whole
/// all the same.
void flush_folder(const std::filesystem::path& folder);

}  // namespace optp

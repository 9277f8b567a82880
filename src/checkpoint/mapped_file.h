// A whole file as read-only memory: pages are read when they are touched, and not before.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace optp {

/// Owns the mapping; views into it live as long as it does. Whoever shortens the file meanwhile breaks it (SIGBUS), so
/// files are replaced, never rewritten in place (see atomic_file.h).
class MappedFile {
 public:
  /// Throws c10::ValueError that names the path: missing, unreadable, not a regular file, or empty.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// All bytes of the file; never empty.
  std::string_view bytes() const { return {data_, size_}; }

 private:
  std::filesystem::path path_;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace optp

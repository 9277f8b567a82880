// Files for the readers that take a path.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace optp {

/// A folder in memory, where the system has such a place. It goes with the object, so fuzzers keep one.
class FuzzFolder {
 public:
  FuzzFolder();
  ~FuzzFolder();
  FuzzFolder(const FuzzFolder&) = delete;
  FuzzFolder& operator=(const FuzzFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  /// Writes the file `name` anew; returns its path.
  std::filesystem::path write(const std::string& name, std::string_view bytes) const;

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::filesystem::path& path);

/// The part of an input before its first zero byte, which is cut off `rest` together with that byte. Inputs that are
/// several texts are written so.
std::string_view take_part(std::string_view& rest);

}  // namespace optp

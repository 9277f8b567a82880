// A file that grows by whole records: what a run writes while it goes on.
#pragma once

#include <filesystem>
#include <string_view>

namespace optp {

/// Every record reaches the file before append() returns, so whoever follows the file (tail -f, TensorBoard) sees it,
/// and a killed process loses nothing. Errors are c10::ValueError that name the path and the reason; a record that does
/// not fit on the disk leaves no part of itself.
class AppendFile {
 public:
  /// Opens `path`, or makes it for its user alone, to write behind what it holds.
  explicit AppendFile(std::filesystem::path path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(std::string_view record);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace optp

// A text file from front to back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/data/xxh64.h"

namespace optp {

/// Reads a file block by block, so that its size does not matter; a pipe will do. Errors are c10::ValueError that names
/// the path.
class TextReader {
 public:
  explicit TextReader(std::filesystem::path path);
  ~TextReader();
  TextReader(const TextReader&) = delete;
  TextReader& operator=(const TextReader&) = delete;

  /// Appends the next block, about 1 MiB, to `text`. False at the end, when there is nothing left to append.
  bool read(std::string& text);

  const std::filesystem::path& path() const { return path_; }
  int64_t size() const { return size_; }            ///< in bytes; 0 if it is not known
  int64_t position() const { return position_; }    ///< bytes read
  uint64_t hash() const { return hash_.digest(); }  ///< XXH64 of them

 private:
  std::filesystem::path path_;
  int descriptor_;
  int64_t size_ = 0;
  int64_t position_ = 0;
  Xxh64 hash_;
};

}  // namespace optp

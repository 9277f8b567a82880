// The files in a zip archive that are stored as they are, which is how torch.save and TorchScript write theirs. Trusts
// nothing that the archive says, and needs nothing of LibTorch but its errors.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace optp {

/// Whether these are the first bytes of a zip archive.
bool is_zip(std::string_view bytes);

/// An archive in memory. Archives beyond 4 GB (zip64) and files whose sizes follow their content are fine; only the
/// central directory is believed. Errors are c10::ValueError, one sentence.
class ZipArchive {
 public:
  /// `file` stands in the messages. Throws for an archive that is cut off or damaged, has a name twice, or claims
  /// content outside itself.
  ZipArchive(std::string_view bytes, const std::string& file);

  /// In alphabetical order.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return contents_.contains(name); }

  /// The content of a file, a view into the archive's bytes. Throws when there is none, or it is compressed or
  /// encrypted.
  std::string_view content(const std::string& name) const;

 private:
  struct Content {
    bool compressed = false;
    bool encrypted = false;
    std::string_view bytes;
  };

  std::string file_;
  std::map<std::string, Content> contents_;
};

}  // namespace optp

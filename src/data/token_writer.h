// Writes token ids to a file.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "src/checkpoint/atomic_file.h"

namespace optp {

/// Writes a file that TokenFile reads: uint16 where all ids of the vocabulary fit, else uint32. The file appears when
/// it is whole. Call order: construct, write as often as needed, commit once. Errors are c10::ValueError that names the
/// path.
class TokenWriter {
 public:
  TokenWriter(const std::filesystem::path& path, int64_t vocab_size);

  /// Ids from 0 to vocab_size - 1.
  void write(c10::ArrayRef<int64_t> ids);
  void commit();

  int64_t count() const { return count_; }

 private:
  AtomicFile file_;
  size_t item_size_;
  int64_t count_ = 0;
  std::vector<uint16_t> narrow_;  // what is written next
  std::vector<uint32_t> wide_;
};

}  // namespace optp

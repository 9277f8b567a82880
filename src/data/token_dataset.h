// Training data: windows over token files, in an order that depends on the seed alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/data/token_file.h"

namespace optp {

/// Window i of a file is its ids i * seq_len .. (i + 1) * seq_len: seq_len + 1 ids, of which the last is the next
/// window's first, so that every id but the file's first is predicted once. No window crosses from one file to the
/// next; a file's last ids that fill no window are left out.
///
/// Reading a sequence costs no more than its own ids, whatever the size of the files, and is safe from several threads.
class TokenDataset {
 public:
  struct Options {
    int64_t seq_len = 0;
    bool shuffle = true;  ///< an order of its own for every epoch; else the order of the files
    uint64_t seed = 0;
  };

  /// Throws c10::ValueError for a file that is too short for one window.
  TokenDataset(std::vector<std::shared_ptr<const TokenFile>> files, const Options& options);

  /// Sequences of an epoch; every window is one of them.
  int64_t sequences() const { return end_ - begin_; }

  /// Sequences `first` .. `first + count - 1` of epoch `epoch` (from 0): int64 [count, seq_len + 1]. A sequence depends
  /// on epoch, its number and the options alone, so ranks that read different parts, or the same part in other batches,
  /// read the same data. Throws c10::IndexError outside the epoch.
  at::Tensor sequences(int64_t epoch, int64_t first, int64_t count) const;

  int64_t seq_len() const { return options_.seq_len; }
  bool shuffles() const { return options_.shuffle; }

  /// Cuts the windows in two: the last `fraction` of them (rounded, at least one) in the order of the files are for
  /// validation, which never shuffles, the others for training. Throws c10::ValueError unless 0 < fraction < 1 and both
  /// parts get a window.
  std::pair<TokenDataset, TokenDataset> split(double fraction) const;

  /// Throws c10::ValueError that names file and id if one of the files holds an id that a model of `vocab_size` has
  /// not. Reads the files whole the first time, as does fingerprint().
  void check_vocabulary(int64_t vocab_size) const;

  /// Hash of all that the windows hold (the files' hashes, their order, seq_len and the part of a split), and not of
  /// the order they are drawn in. It notices changed training data when a run is resumed.
  std::string fingerprint() const;

 private:
  void copy_window(int64_t window, int64_t* out) const;

  std::vector<std::shared_ptr<const TokenFile>> files_;
  std::vector<int64_t> starts_;  // number of each file's first window, and of all windows
  Options options_;
  int64_t begin_ = 0, end_ = 0;  // the windows of this part
};

}  // namespace optp

#include "src/data/token_dataset.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel/random.h"
#include "src/data/shuffle.h"
#include "src/data/xxh64.h"

namespace optp {

TokenDataset::TokenDataset(std::vector<std::shared_ptr<const TokenFile>> files, const Options& options)
    : files_(std::move(files)), options_(options) {
  TORCH_CHECK_VALUE(options.seq_len > 0, "seq_len ", options.seq_len, " is no length; use 1 or more.");
  TORCH_CHECK_VALUE(!files_.empty(), "there are no files to train on; name at least one.");
  starts_.push_back(0);
  for (const auto& file : files_) {
    const int64_t windows = (file->size() - 1) / options.seq_len;
    TORCH_CHECK_VALUE(windows > 0, file->name().string(), " has ", file->size(), " tokens, but a window of seq-len ",
                      options.seq_len, " takes ", options.seq_len + 1, "; use a longer text or a smaller --seq-len.");
    starts_.push_back(starts_.back() + windows);
  }
  end_ = starts_.back();
}

at::Tensor TokenDataset::sequences(int64_t epoch, int64_t first, int64_t count) const {
  TORCH_CHECK_INDEX(epoch >= 0 && first >= 0 && count >= 0 && first <= sequences() && count <= sequences() - first,
                    count, " sequences from ", first, " on do not lie in epoch ", epoch, ", which has ", sequences(),
                    ".");
  at::Tensor ids = at::empty({count, options_.seq_len + 1}, at::kLong);
  auto* out = ids.mutable_data_ptr<int64_t>();
  const Shuffle shuffle(RandomKey(options_.seed).with("order of the sequences").with(epoch), sequences());
  for (int64_t i = first; i < first + count; ++i, out += options_.seq_len + 1) {
    copy_window(begin_ + (options_.shuffle ? shuffle[i] : i), out);
  }
  return ids;
}

void TokenDataset::copy_window(int64_t window, int64_t* out) const {
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), window);
  const auto file = static_cast<size_t>(next - starts_.begin() - 1);
  files_[file]->read((window - starts_[file]) * options_.seq_len, options_.seq_len + 1, out);
}

std::pair<TokenDataset, TokenDataset> TokenDataset::split(double fraction) const {
  TORCH_CHECK_VALUE(fraction > 0 && fraction < 1, "a validation part of ", fraction,
                    " is impossible; use a fraction between 0 and 1.");
  TORCH_CHECK_VALUE(sequences() > 1, "one window cannot be split into training and validation; use more data.");
  const auto wanted = static_cast<int64_t>(std::llround(fraction * static_cast<double>(sequences())));
  const int64_t middle = end_ - std::clamp<int64_t>(wanted, 1, sequences() - 1);
  TokenDataset training = *this;
  training.end_ = middle;
  TokenDataset validation = *this;
  validation.begin_ = middle;
  validation.options_.shuffle = false;
  return {std::move(training), std::move(validation)};
}

void TokenDataset::check_vocabulary(int64_t vocab_size) const {
  for (const auto& file : files_) {
    TORCH_CHECK_VALUE(file->largest_id() < vocab_size, file->name().string(), " holds the id ", file->largest_id(),
                      ", outside the model's vocabulary of ", vocab_size, "; use the model's own tokenizer.");
  }
}

std::string TokenDataset::fingerprint() const {
  std::string text = c10::str("seq_len ", options_.seq_len, " windows ", begin_, " ", end_);
  for (const auto& file : files_) text += c10::str(" ids ", file->size(), " ", hex64(file->hash()));
  return hex64(xxh64(text));
}

}  // namespace optp

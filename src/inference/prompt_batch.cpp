#include "src/inference/prompt_batch.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace optp {

PromptBatch::PromptBatch(const std::vector<std::vector<int64_t>>& prompts, int64_t pad_id, int64_t new_tokens) {
  size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const auto rows = static_cast<int64_t>(prompts.size());
  const auto width = static_cast<int64_t>(longest);
  ids_ = at::full({rows, width}, pad_id, at::kLong);
  mask_ = at::ones({rows, width + new_tokens}, at::kLong);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t padding = width - static_cast<int64_t>(prompts[row].size());
    std::copy(prompts[row].begin(), prompts[row].end(), ids_[row].data_ptr<int64_t>() + padding);
    mask_[row].narrow(0, 0, padding).zero_();
    padded_ = padded_ || padding > 0;
  }
}

at::Tensor PromptBatch::mask(int64_t length) const { return padded_ ? mask_.narrow(1, 0, length) : at::Tensor(); }

}  // namespace optp

// Prompts of different length as one batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace optp {

/// Prompts side by side, padded on the left, with room for the tokens to come.
class PromptBatch {
 public:
  /// `prompts`: one a row, none empty. Up to `new_tokens` tokens follow each.
  PromptBatch(const std::vector<std::vector<int64_t>>& prompts, int64_t pad_id, int64_t new_tokens);

  int64_t rows() const { return ids_.size(0); }
  /// Tokens that a row may have in the end, padding included.
  int64_t capacity() const { return mask_.size(1); }
  /// The prompts, int64 [rows, longest].
  const at::Tensor& ids() const { return ids_; }
  /// The mask of the first `length` tokens, int64 [rows, length]: 0 where padding stands. Undefined without padding.
  at::Tensor mask(int64_t length) const;

 private:
  at::Tensor ids_;
  at::Tensor mask_;  // [rows, capacity]
  bool padded_ = false;
};

}  // namespace optp

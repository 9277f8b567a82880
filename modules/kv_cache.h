// Keys and values of the tokens that a model has read, so that the next token costs one pass over one token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/process_group.h"

namespace optp {

/// B sequences, H local heads, L tokens so far (padding included), K head_dim. Call order, by the model: append() for
/// every layer with the same T new tokens, then advance(T). Not for training: what is stored has no gradient.
class KvCache {
 public:
  /// Allocates room for `capacity` tokens of `batch` sequences on this rank of the tensor-parallel `group`, once:
  /// 2 x layers x batch x H x capacity x K numbers of `type`.
  KvCache(const OptConfig& config, const ProcessGroup& group, int64_t batch, int64_t capacity, at::ScalarType type);

  int64_t batch() const { return keys_.front().size(0); }
  int64_t capacity() const { return keys_.front().size(2); }
  /// Tokens that every layer holds.
  int64_t length() const { return length_; }

  /// Stores key and value [B, H, T, K] of `layer` behind the first length() tokens; returns all L + T of them, views of
  /// the cache [B, H, L + T, K]. Throws c10::ValueError when they do not fit.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& key, const at::Tensor& value);

  void advance(int64_t tokens) { length_ += tokens; }
  /// Forgets everything; the memory stays.
  void clear() { length_ = 0; }

 private:
  std::vector<at::Tensor> keys_, values_;  // of each layer [B, H, capacity, K]
  int64_t length_ = 0;
};

}  // namespace optp

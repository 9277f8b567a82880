#include "modules/kv_cache.h"

#include <ATen/ATen.h>

#include "parallel/shard.h"

namespace optp {

KvCache::KvCache(const OptConfig& config, const ProcessGroup& group, int64_t batch, int64_t capacity,
                 at::ScalarType type) {
  TORCH_CHECK_VALUE(batch > 0 && capacity > 0, "a key/value cache of ", batch, " sequences x ", capacity,
                    " tokens is empty; ask for at least one of each.");
  const int64_t heads = ShardLayout(config.num_attention_heads(), group.size()).range(group.rank()).size;
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer) {
    keys_.push_back(at::empty({batch, heads, capacity, config.head_dim()}, type));
    values_.push_back(at::empty_like(keys_.back()));
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer, const at::Tensor& key, const at::Tensor& value) {
  const int64_t tokens = key.size(2);
  TORCH_CHECK_VALUE(key.size(0) == batch() && length_ + tokens <= capacity(), "the key/value cache holds ", batch(),
                    " sequences of ", capacity(), " tokens, and ", key.size(0), " of ", length_ + tokens,
                    " do not fit; make a larger one.");
  keys_[layer].narrow(2, length_, tokens).copy_(key);
  values_[layer].narrow(2, length_, tokens).copy_(value);
  return {keys_[layer].narrow(2, 0, length_ + tokens), values_[layer].narrow(2, 0, length_ + tokens)};
}

}  // namespace optp

// Random numbers keyed by what they are for, not by who draws them: the same at every degree of parallelism.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "parallel/parameter_shard.h"

namespace optp {

/// A key that names one stream of random numbers. Derive the key of a thing from the seed by the names and indices that
/// lead to it:
///
///     RandomKey(seed).with("init").with("model.decoder.layers.0.fc1.weight")
///
/// Number i of a stream is a function of (key, i) alone (Philox4x32-10: Salmon et al., "Parallel random numbers: as
/// easy as 1, 2, 3", SC 2011), so any part of a stream can be drawn without the rest.
class RandomKey {
 public:
  explicit RandomKey(uint64_t seed);

  RandomKey with(std::string_view name) const;
  RandomKey with(int64_t index) const;

  uint64_t value() const { return value_; }

 private:
  uint64_t value_;
};

/// Writes numbers `first` .. `first + count - 1` of the key's stream of N(0, 1) numbers.
void draw_normal(const RandomKey& key, int64_t first, int64_t count, float* out);

/// Writes numbers `first` .. `first + count - 1` of the key's stream of 32 random bits.
void draw_bits(const RandomKey& key, int64_t first, int64_t count, uint32_t* out);

/// Fills the local part of a parameter with N(0, std): element i of the whole parameter, in row-major order, is number
/// i of the key's stream. Every degree gets the same parameter, bit for bit, and draws only what it keeps.
void fill_normal(at::Tensor& local, const ParameterShard& shard, const RandomKey& key, double std);

}  // namespace optp

// The stored weights of one model, whatever form they are stored in.
#pragma once

#include <c10/core/ScalarType.h>

#include <memory>
#include <string>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/parameter_shard.h"

namespace optp {

/// Parameters carry OPTForCausalLM's names. Opening one reads no weights, and any number of ranks may open the same.
/// Errors are c10::ValueError: one sentence that names the file, the tensor and the value that is wrong.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// Throws unless every one of `parameters` is there in its global shape, as floating-point numbers, and nothing else
  /// is. All ranks come to the same result. Looks at names and shapes alone: the tensors may be undefined.
  virtual void check(const std::vector<NamedShard>& parameters) const = 0;

  /// How a parameter that has passed the check is stored.
  virtual at::ScalarType dtype(const std::string& name) const = 0;

  /// Fills the tensor of a parameter that has passed the check with its range of what is stored, converted to the
  /// tensor's dtype. Reads nothing outside that range.
  virtual void read(const NamedShard& parameter) const = 0;

  /// All of a model: checks everything before the first value is written.
  void load(const std::vector<NamedShard>& parameters) const;
};

/// The weights that `initialize` (modules/opt_init.h) draws from `seed`, in float32.
std::unique_ptr<WeightSource> fresh_weights(const OptConfig& config, uint64_t seed);

}  // namespace optp

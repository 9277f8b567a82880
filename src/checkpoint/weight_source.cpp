#include "src/checkpoint/weight_source.h"

#include "modules/opt_init.h"

namespace optp {
namespace {

class FreshWeights final : public WeightSource {
 public:
  FreshWeights(const OptConfig& config, uint64_t seed) : config_(config), seed_(seed) {}

  void check(const std::vector<NamedShard>& /*parameters*/) const override {}
  at::ScalarType dtype(const std::string& /*name*/) const override { return at::kFloat; }
  void read(const NamedShard& parameter) const override { initialize({parameter}, config_, seed_); }

 private:
  OptConfig config_;
  uint64_t seed_;
};

}  // namespace

void WeightSource::load(const std::vector<NamedShard>& parameters) const {
  check(parameters);
  for (const NamedShard& parameter : parameters) read(parameter);
}

std::unique_ptr<WeightSource> fresh_weights(const OptConfig& config, uint64_t seed) {
  return std::make_unique<FreshWeights>(config, seed);
}

}  // namespace optp

#include "parallel/vector_math.h"

#include <ATen/ATen.h>

namespace optp {
namespace {

// Those that ATen/cpu/vml.h takes from MKL.
bool call_each_once() {
  using Function = at::Tensor (*)(const at::Tensor&);
  constexpr Function kFunctions[] = {at::acos, at::asin,  at::atan, at::cos, at::erf,  at::erfc, at::erfinv, at::exp,
                                     at::log,  at::log10, at::log2, at::sin, at::sqrt, at::tan,  at::tanh,   at::trunc};
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor half = at::full(1, 0.5, type);
    for (const Function function : kFunctions) function(half);
  }
  return true;
}

}  // namespace

void resolve_vector_math() {
  static const bool resolved = call_each_once();  // threads that come meanwhile wait
  static_cast<void>(resolved);
}

}  // namespace optp

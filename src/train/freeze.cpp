#include "src/train/freeze.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <fnmatch.h>

namespace optp {

void freeze_parameters(const std::vector<NamedShard>& parameters, const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) {
    bool matched = false;
    for (const NamedShard& parameter : parameters) {
      if (fnmatch(pattern.c_str(), parameter.name.c_str(), 0) != 0) continue;
      matched = true;
      parameter.tensor.requires_grad_(false);
    }
    TORCH_CHECK_VALUE(matched, "no parameter is called like \"", pattern, "\", which is to be frozen; names look like ",
                      parameters.empty() ? "" : parameters.back().name, ".");
  }
}

}  // namespace optp

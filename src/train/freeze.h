// Parameters that are not trained, by patterns on their names.
#pragma once

#include <string>
#include <vector>

#include "parallel/parameter_shard.h"

namespace optp {

/// Turns off the gradients of all parameters that a shell-style pattern (`*`, `?`, `[..]`; `*` also spans dots) matches
/// in full. Throws c10::ValueError for a pattern that matches none.
void freeze_parameters(const std::vector<NamedShard>& parameters, const std::vector<std::string>& patterns);

}  // namespace optp

// Ranks that disagree on a collective, found before they hang or add garbage.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <string>

namespace optp {

/// Returns if all ranks of `backend` pass the same text, which says what collective each is about to enter; throws
/// c10::DistBackendError that quotes both texts otherwise. Texts are compared up to 255 bytes. Costs an all_gather.
void check_same_call(c10d::Backend& backend, const std::string& call);

}  // namespace optp

// Ranks that disagree on a collective, found before they hang or add garbage.
#pragma once

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <cstdint>
#include <string>

namespace optp {

/// Ranks are about to enter different collectives.
class DisagreementError : public c10::DistBackendError {
 public:
  /// This rank takes part in `own` when `rank` takes part in `theirs`.
  DisagreementError(const std::string& own, int64_t rank, const std::string& theirs);
};

/// Returns if all ranks of `backend` pass the same text, which says what collective each is about to enter; throws
/// DisagreementError otherwise. Texts are compared up to 255 bytes. Costs an all_gather.
void check_same_call(c10d::Backend& backend, const std::string& call);

}  // namespace optp

// Runs a verification.
#pragma once

#include "parallel/mesh.h"
#include "src/verify/check.h"
#include "src/verify/session.h"

namespace optp {

/// Runs the checks that `options` names, in their order, and says on the log how each went. Collective over `mesh`; the
/// same report on every rank. Throws c10::ValueError for options that do not fit the model, c10::DistError when a rank
/// is lost.
VerifyReport run_verification(const VerifyOptions& options, const Mesh& mesh);

}  // namespace optp

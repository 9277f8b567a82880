// A verification report in the forms it is written in.
#pragma once

#include <filesystem>
#include <string>

#include "src/verify/check.h"

namespace optp {

/// Plain text for people, 100 columns: facts, a table for each check, the checklist. The last line is `Verdict: PASS`
/// or `Verdict: FAIL`.
std::string report_text(const VerifyReport& report);

/// The object that `--json` promises: verdict, model, tp, dp, dtype, seconds, checks, and caught_by when a fault was
/// injected.
std::string report_json(const VerifyReport& report);

/// JUnit XML, one test case a check.
std::string report_junit(const VerifyReport& report);

/// One self-contained page: no script, no other file.
std::string report_html(const VerifyReport& report);

}  // namespace optp

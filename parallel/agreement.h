// What may fail on one rank alone, such as writing a file, made to fail on all of them or none.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/process_group.h"

namespace optp {

/// The texts of all ranks, by rank. Collective; they may be of any length.
std::vector<std::string> all_gather_text(const std::string& text, const ProcessGroup& group, std::string_view site);

/// Runs `work`, which must not communicate, and returns when it is done on every rank of `group`. If it throws on any,
/// every rank throws a c10::ValueError with the sentence of the first that failed, which names the rank unless all
/// failed alike. Collective. In a group of one it is a plain call.
void run_on_all(const ProcessGroup& group, std::string_view site, const std::function<void()>& work);

}  // namespace optp

// Where a program's file is.
#pragma once

#include <string>

namespace optp {

/// The path of the program `name`: itself if it has a slash in it, else where PATH leads. Throws c10::ValueError if
/// there is none that may be run.
std::string find_program(const std::string& name);

}  // namespace optp

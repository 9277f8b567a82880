// The version of optp, from the project line of CMakeLists.txt.
#pragma once

namespace optp {

inline constexpr const char* kVersion = OPTP_VERSION;

}  // namespace optp

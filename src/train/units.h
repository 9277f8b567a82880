// Quantities as people read them, besides those of src/progress.h.
#pragma once

#include <string>

namespace optp {

/// "950", "12.3k", "4.57M", "300B".
std::string count_text(double count);
/// Memory: "512 B", "1.50 MiB", "12.3 GiB".
std::string memory_text(double bytes);

}  // namespace optp

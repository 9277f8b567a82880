// What a run says on standard error while it works. One rank speaks; the others keep silent.
#pragma once

#include <string>

namespace optp {

enum class LogLevel { debug, info, warn, error };

/// Sets the least level that is printed, and whether this process speaks at all. Until it is called: info, and it
/// speaks.
void set_log(LogLevel least, bool speaks);

/// Whether a line of this level would be printed, for lines that cost something to make.
bool log_enabled(LogLevel level);

/// Prints one line, a newline added.
void log_line(LogLevel level, const std::string& text);

/// Keeps `text` in the last line of the terminal that standard error is, below the lines that are printed; "" takes it
/// away. It must not be longer than a line.
void show_status(const std::string& text);

}  // namespace optp

// Lines of standard input, which one rank reads and all ranks get.
#pragma once

#include <optional>
#include <string>

#include "parallel/process_group.h"

namespace optp {

/// Rank 0 reads, and hands each line on. Waiting for a person takes as long as it takes: meanwhile rank 0 lets the
/// others know every few seconds that it lives, so that no time limit ends.
class SharedLines {
 public:
  /// `prompt` is shown on standard error before each line if standard input is a terminal.
  SharedLines(ProcessGroup group, std::string prompt);

  /// The next line that is not empty, without its end; nothing at the end of the input. Collective.
  std::optional<std::string> next();

 private:
  // Waits up to a few seconds for a line (rank 0 only); nothing has come: empty.
  std::optional<std::string> poll_line();

  ProcessGroup group_;
  std::string prompt_;
  std::string buffer_;  // read, but not handed out
  bool ended_ = false;
};

}  // namespace optp

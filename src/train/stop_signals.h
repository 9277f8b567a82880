// SIGINT and SIGTERM as a request to stop at the next good moment.
#pragma once

namespace optp {

/// While it lives, the first SIGINT or SIGTERM is kept instead of ending the process; received() tells. One that comes
/// more than a second later ends the process as if nothing had been done about it: the user insists. (Sooner, it is the
/// same request twice: a terminal and a parent both pass it on.) A signal that was ignored stays ignored. At most one
/// object at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The first signal that came, or 0.
  int received() const;
};

}  // namespace optp

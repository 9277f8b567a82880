// SIGUSR1: a process that is asked what it does says so.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace optp {

/// From now on SIGUSR1 is ignored where it would end the process, unless somebody handles it. Processes started later
/// have the usual action again.
void survive_status_signal();

/// While it lives, SIGUSR1 makes this process print "optp: " and what `report` returns, a line on standard error, from
/// a thread of its own. At most one object at a time.
class StatusSignal {
 public:
  explicit StatusSignal(std::function<std::string()> report);
  /// Waits for a report that is under way.
  ~StatusSignal();
  StatusSignal(const StatusSignal&) = delete;
  StatusSignal& operator=(const StatusSignal&) = delete;

  /// What is reported from now on.
  void set_report(std::function<std::string()> report);

 private:
  struct State;

  std::unique_ptr<State> state_;
};

}  // namespace optp

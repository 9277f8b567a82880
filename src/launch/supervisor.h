// When to signal the ranks of a run and whose fault its failure is. Knows no processes: it is told what happens and
// says what to send.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace optp {

/// A rank fails by ending with a signal or a status other than 0. The others may then still end by themselves for 3 s;
/// after that they get SIGTERM and 5 s later SIGKILL.
class Supervisor {
 public:
  enum class Status1 {
    kFailure,
    kReport,  // a rank that did its work and reports a failed check: the others may take their time
  };

  /// `send_all` sends a signal to every rank that still runs.
  Supervisor(int ranks, Status1 status_1, std::function<void(int signal)> send_all);

  bool running() const { return running_ > 0; }
  /// Someone asks to stop the run: passes the signal on, unless `from_terminal`, which sends it to the ranks as well.
  /// A repetition more than 1 s later kills the ranks; sooner it is the same request twice, which `timeout`, for one,
  /// sends.
  void on_stop_signal(int signal, bool from_terminal);
  /// `rank` has ended with `wait_status`, as waitpid gives it.
  void on_end(int rank, int wait_status);
  /// The run has failed elsewhere: treats the ranks as if one of them had failed.
  void end_others();
  /// Does what is due. Call it after poll, which may wait poll_milliseconds().
  void escalate_if_due();
  int poll_milliseconds() const;

  /// The first stop signal, or 0.
  int stopped_by() const { return stopped_by_; }
  /// Ranks that failed by themselves, in the order seen.
  const std::vector<int>& failures() const { return failures_; }
  int wait_status(int rank) const { return wait_statuses_[static_cast<size_t>(rank)]; }
  /// The first rank to fail, but a status 3 (another rank could not be reached) gives way to a failure that explains
  /// it.
  std::optional<int> cause() const;

 private:
  using Clock = std::chrono::steady_clock;
  enum class Stage { kRunning, kGrace, kTerminating, kKilling };

  Status1 status_1_;
  std::function<void(int signal)> send_all_;
  int running_;
  std::vector<int> wait_statuses_;
  Stage stage_ = Stage::kRunning;
  Clock::time_point deadline_;  // of the stage
  int stopped_by_ = 0;
  Clock::time_point stopped_at_;
  std::vector<int> failures_;
};

/// Whether a status of waitpid says that the process ended by itself with `status`.
bool exited_with(int wait_status, int status);

/// "exited with status 3" or "was killed by signal 9 (Killed)".
std::string describe_end(int wait_status);

// Exit statuses of the program, as its users know them.
constexpr int kCheckFailed = 1;
constexpr int kBadInput = 2;
constexpr int kRankFailed = 3;

}  // namespace optp

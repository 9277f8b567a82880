// The ranks of this host, held so that they and all their descendants end when they should, whatever happens to the
// launcher.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

namespace optp {

/// Ranks under a guard: a process between this one and the ranks that does nothing but hold them. It adopts what the
/// ranks leave behind, and it kills all of them when this process dies, even by SIGKILL. When it dies itself, the
/// kernel kills the ranks, and this process, if it has called adopt_orphans, can kill_children().
///
/// Once all ranks have ended, the processes that they left behind get SIGTERM, and SIGKILL 5 s later.
class GuardedRanks {
 public:
  struct End {
    int rank;         // on this host
    int wait_status;  // as waitpid gives it
  };

  /// Starts a rank for each of `environments` ("NAME=value"). Rank 0 has this process's standard input, the others have
  /// none. Throws c10::Error if there can be no more processes or descriptors. Call it from the main thread.
  GuardedRanks(const std::string& program, const std::vector<std::string>& argv,
               const std::vector<std::vector<std::string>>& environments, const sigset_t& signal_mask);
  /// Kills what still runs.
  ~GuardedRanks();
  GuardedRanks(const GuardedRanks&) = delete;
  GuardedRanks& operator=(const GuardedRanks&) = delete;

  /// Readable when next_end or gone has news; -1 after gone.
  int event_fd() const { return socket_; }
  /// A rank that has ended since the last call, without waiting.
  std::optional<End> next_end();
  /// The guard has ended, after every process that it held. Known once next_end has nothing more to give.
  bool gone() const { return socket_ < 0; }
  /// How the guard ended, as waitpid gives it: anything but 0 means that it was killed.
  int guard_status() const { return guard_status_; }
  /// Sends a signal to every rank that runs; SIGINT and SIGKILL go to their descendants as well.
  void send(int signal);

  /// Pipes with what a rank prints; they end when all who hold them have ended. The caller reads them, and closes them.
  const std::vector<int>& outputs() const { return outputs_; }
  const std::vector<int>& errors() const { return errors_; }

 private:
  int socket_ = -1;
  pid_t guard_ = -1;
  int guard_status_ = 0;
  std::vector<int> outputs_, errors_;
};

}  // namespace optp

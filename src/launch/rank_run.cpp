#include "src/launch/rank_run.h"

#include <c10/util/StringUtil.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "src/launch/process_tree.h"

namespace optp {
namespace {

// One thread for each of the host's cores that a rank has to itself, as `optp --threads` counts them. Without it every
// rank would take all cores.
Variables with_threads(Variables variables, int ranks) {
  if (ranks > 1 && std::getenv("OMP_NUM_THREADS") == nullptr) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    variables.emplace_back("OMP_NUM_THREADS", std::to_string(std::max(1, cores / ranks)));
  }
  return variables;
}

std::vector<std::vector<std::string>> environments(const RankPlace& place) {
  std::vector<std::vector<std::string>> all;
  for (int rank = 0; rank < place.local_world_size; ++rank) {
    all.push_back(changed_environment(with_threads(rank_variables(place, rank), place.local_world_size)));
  }
  return all;
}

// Folder of a rank's logs, as torchrun lays them out, or an empty path.
std::filesystem::path log_folder(const LaunchOptions& options, const RankPlace& place, int rank) {
  if (options.log_dir.empty()) return {};
  const std::filesystem::path folder =
      options.log_dir / place.run_id / c10::str("attempt_", place.restart_count) / std::to_string(rank);
  make_log_folder(folder);
  return folder;
}

}  // namespace

RankRun::RankRun(const std::string& program, const LaunchOptions& options, const RankPlace& place,
                 const sigset_t& signal_mask, LinePrinter& printer)
    : ranks_(program, options.program, environments(place), signal_mask),
      supervisor_(options.ranks, Supervisor::Status1::kFailure, [this](int signal) { ranks_.send(signal); }),
      place_(place),
      printer_(printer) {
  for (int local = 0; local < options.ranks; ++local) {
    const int rank = place.first_rank + local;
    const auto index = static_cast<size_t>(local);
    const std::filesystem::path folder = log_folder(options, place, rank);
    const auto log = [&](const char* name) { return folder.empty() ? folder : folder / name; };
    outputs_.push_back(
        std::make_unique<RankOutput>(rank, ranks_.outputs()[index], STDOUT_FILENO, printer, log("stdout.log")));
    errors_.push_back(
        std::make_unique<RankOutput>(rank, ranks_.errors()[index], STDERR_FILENO, printer, log("stderr.log")));
  }
}

void RankRun::add_poll(std::vector<pollfd>& fds, int& milliseconds) const {
  fds.push_back({ranks_.event_fd(), POLLIN, 0});
  if (reads_on()) {
    for (const auto* streams : {&outputs_, &errors_}) {
      for (const auto& stream : *streams) fds.push_back({stream->fd(), POLLIN, 0});
    }
  }
  const int due = supervisor_.poll_milliseconds();
  if (due >= 0) milliseconds = std::min(milliseconds, due);
}

// With everyone gone there is no more to come than the pipes hold.
bool RankRun::reads_on() const { return !printer_.full() || ranks_.gone(); }

void RankRun::advance() {
  bool read = false;
  for (size_t rank = 0; rank < outputs_.size() && reads_on(); ++rank) {
    read |= outputs_[rank]->read();
    read |= errors_[rank]->read();
  }
  while (const auto end = ranks_.next_end()) supervisor_.on_end(end->rank, end->wait_status);
  supervisor_.escalate_if_due();
  if (!ranks_.gone()) return;
  if (ranks_.guard_status() != 0 && !guard_lost_) {
    guard_lost_ = true;
    kill_children();
  }
  if (read) return;
  for (size_t rank = 0; rank < outputs_.size(); ++rank) {
    outputs_[rank]->finish();
    errors_[rank]->finish();
  }
  over_ = true;
}

NodeOutcome RankRun::outcome(const std::string& host) const {
  const auto where = place_.nodes > 1 ? c10::str("node ", place_.node_rank, " (host ", host, ")") : "host " + host;
  const std::optional<int> cause = supervisor_.cause();
  if (!cause) {
    if (!guard_lost_) return {};
    return {
        .status = kRankFailed,
        .sentence = c10::str("the process on ", where, " that holds the ranks ", describe_end(ranks_.guard_status()))};
  }
  const int end = supervisor_.wait_status(*cause);
  const auto& lines = errors_[static_cast<size_t>(*cause)]->last_lines();
  return {.status = WIFSIGNALED(end) ? 128 + WTERMSIG(end) : WEXITSTATUS(end),
          .explains = !exited_with(end, kRankFailed),
          .sentence = c10::str("rank ", place_.first_rank + *cause, " on ", where, " ", describe_end(end)),
          .last_lines = {lines.begin(), lines.end()}};
}

}  // namespace optp

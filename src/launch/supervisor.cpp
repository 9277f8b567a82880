#include "src/launch/supervisor.h"

#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <utility>

namespace optp {
namespace {

constexpr auto kGrace = std::chrono::seconds(3);  // longer than a rank takes to learn which other was lost
constexpr auto kTerminationTime = std::chrono::seconds(5);

}  // namespace

bool exited_with(int wait_status, int status) { return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == status; }

std::string describe_end(int wait_status) {
  if (!WIFSIGNALED(wait_status)) return "exited with status " + std::to_string(WEXITSTATUS(wait_status));
  const int signal = WTERMSIG(wait_status);
  return "was killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
}

Supervisor::Supervisor(int ranks, Status1 status_1, std::function<void(int signal)> send_all)
    : status_1_(status_1),
      send_all_(std::move(send_all)),
      running_(ranks),
      wait_statuses_(static_cast<size_t>(ranks), 0) {}

void Supervisor::on_stop_signal(int signal, bool from_terminal) {
  if (stopped_by_ == 0 && stage_ <= Stage::kGrace) {
    stopped_by_ = signal;
    stopped_at_ = Clock::now();
    if (!from_terminal) send_all_(signal);
  } else if (Clock::now() - stopped_at_ > std::chrono::seconds(1)) {
    stage_ = Stage::kKilling;
    send_all_(SIGKILL);
  }
}

void Supervisor::on_end(int rank, int wait_status) {
  --running_;
  wait_statuses_[static_cast<size_t>(rank)] = wait_status;
  if (exited_with(wait_status, 0) || stage_ >= Stage::kTerminating) return;
  if (stopped_by_ != 0 && exited_with(wait_status, 128 + stopped_by_)) return;
  failures_.push_back(rank);
  if (status_1_ == Status1::kFailure || !exited_with(wait_status, kCheckFailed)) end_others();
}

void Supervisor::end_others() {
  if (stage_ != Stage::kRunning) return;
  stage_ = Stage::kGrace;
  deadline_ = Clock::now() + kGrace;
}

void Supervisor::escalate_if_due() {
  if (stage_ == Stage::kRunning || stage_ == Stage::kKilling || Clock::now() < deadline_) return;
  const bool terminate = stage_ == Stage::kGrace;
  stage_ = terminate ? Stage::kTerminating : Stage::kKilling;
  deadline_ = Clock::now() + kTerminationTime;
  send_all_(terminate ? SIGTERM : SIGKILL);
}

int Supervisor::poll_milliseconds() const {
  if (stage_ == Stage::kRunning || stage_ == Stage::kKilling) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

std::optional<int> Supervisor::cause() const {
  if (failures_.empty()) return std::nullopt;
  if (!exited_with(wait_status(failures_.front()), kRankFailed)) return failures_.front();
  const auto explains = [&](int rank) {
    return !exited_with(wait_status(rank), kRankFailed) && !exited_with(wait_status(rank), kCheckFailed);
  };
  const auto found = std::find_if(failures_.begin(), failures_.end(), explains);
  return found == failures_.end() ? failures_.front() : *found;
}

}  // namespace optp

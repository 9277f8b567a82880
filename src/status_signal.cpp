#include "src/status_signal.h"

#include <c10/util/Exception.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <mutex>
#include <thread>
#include <utility>

namespace optp {
namespace {

std::atomic<int> event_fd = -1;  // what the handler writes to

void write_event() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

// Calls nothing but what may be called in a signal handler.
void ask(int /*signal*/) {
  const int error = errno;
  if (event_fd >= 0) write_event();
  errno = error;
}

}  // namespace

struct StatusSignal::State {
  std::mutex mutex;
  std::function<std::string()> report;
  std::atomic<bool> ends = false;
  std::thread thread;

  void answer() {
    uint64_t count = 0;
    while (read(event_fd, &count, sizeof(count)) == sizeof(count) && !ends) {
      std::unique_lock lock(mutex);
      const std::function<std::string()> now = report;
      lock.unlock();
      // One write, so that the lines of several processes do not mix.
      std::cerr << "optp: " + now() + "\n" << std::flush;
    }
  }
};

void survive_status_signal() {
  struct sigaction action{};
  sigaction(SIGUSR1, nullptr, &action);
  if (action.sa_handler == SIG_IGN) return;
  action = {};
  action.sa_handler = ask;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  // A launcher blocks it until there is a handler.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

StatusSignal::StatusSignal(std::function<std::string()> report) : state_(std::make_unique<State>()) {
  state_->report = std::move(report);
  event_fd = eventfd(0, EFD_CLOEXEC);
  TORCH_CHECK(event_fd >= 0, "cannot wait for signals: ", std::strerror(errno));
  state_->thread = std::thread([state = state_.get()] { state->answer(); });
  survive_status_signal();
}

StatusSignal::~StatusSignal() {
  state_->ends = true;
  write_event();
  state_->thread.join();
  close(event_fd.exchange(-1));
}

void StatusSignal::set_report(std::function<std::string()> report) {
  const std::lock_guard lock(state_->mutex);
  state_->report = std::move(report);
}

}  // namespace optp

#include "src/train/stop_signals.h"

#include <csignal>
#include <ctime>

namespace optp {
namespace {

constexpr int kStopSignals[] = {SIGINT, SIGTERM};
volatile std::sig_atomic_t first_signal = 0;
volatile std::time_t first_signal_time = 0;
struct sigaction previous_actions[2];

// Calls nothing but what may be called in a signal handler.
void keep_signal(int signal) {
  if (first_signal == 0) {
    first_signal_time = time(nullptr);
    first_signal = signal;
  } else if (time(nullptr) - first_signal_time > 1) {
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

StopSignals::StopSignals() {
  first_signal = 0;
  for (int i = 0; i < 2; ++i) {
    struct sigaction action{};
    action.sa_handler = keep_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(kStopSignals[i], nullptr, &previous_actions[i]);
    if (previous_actions[i].sa_handler != SIG_IGN) sigaction(kStopSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (int i = 0; i < 2; ++i) sigaction(kStopSignals[i], &previous_actions[i], nullptr);
}

int StopSignals::received() const { return first_signal; }

}  // namespace optp

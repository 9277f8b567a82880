#include "src/launch/node_link.h"

#include <arpa/inet.h>
#include <c10/util/Exception.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>

#include "parallel/launch_env.h"
#include "parallel/rendezvous.h"
#include "src/launch/supervisor.h"

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kLookInterval = std::chrono::milliseconds(200);
constexpr auto kLeaveTime = std::chrono::seconds(4);

bool bound_to_loopback(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return address.sin_family == AF_INET && (ntohl(address.sin_addr.s_addr) >> 24) == 127;
}

// localhost can be ::1 as well; clients try both.
std::string local_address(const std::string& address) { return address == "localhost" ? "127.0.0.1" : address; }

// At the master's address alone, or on all interfaces where that is not one of this host's own: a host can be known to
// others by an address that it has not itself, and Debian maps a host's name to 127.0.1.1.
ListeningSocket listen_at_master(const std::string& address, int port, bool surely_here) {
  if (is_loopback(address)) return listen_on(local_address(address), port);
  try {
    const ListeningSocket listening = listen_on(address, port);
    if (!bound_to_loopback(listening.fd)) return listening;
    close(listening.fd);
  } catch (const c10::DistBackendError&) {
    if (!surely_here) throw;
  }
  return listen_on("0.0.0.0", port);
}

// Nothing where another launcher serves the store.
std::optional<ListeningSocket> listen_if_first(const LaunchOptions& options) {
  if (options.nodes == 1) return listen_on(local_address(options.master_addr), options.master_port);
  if (options.node_rank == 0) return listen_at_master(options.master_addr, options.master_port, true);
  if (options.node_rank) return std::nullopt;
  try {
    return listen_at_master(options.master_addr, options.master_port, false);
  } catch (const c10::DistBackendError&) {
    return std::nullopt;
  }
}

}  // namespace

struct NodeLink::State {
  State() : event_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~State() { close(event_fd); }

  const int event_fd;
  std::mutex mutex;
  std::condition_variable changed;
  // What the launcher has to say:
  bool news = false;
  int attempt = -1;
  bool failed = false;
  std::optional<NodeOutcome> outcome;
  int stop = 0;
  bool leaving = false;
  // What the thread has learnt:
  View view;
  Clock::time_point contact = Clock::now();
  bool finished = false;

  // The thread.
  void talk(const LaunchOptions& options, const std::optional<ListeningSocket>& listening);
  void converse(NodeStore& store);
  template <typename Change>
  void learn(const Change& change);

  // The loop.
  template <typename Change>
  void tell(const Change& change);
};

// Changes the view, and tells the loop.
template <typename Change>
void NodeLink::State::learn(const Change& change) {
  const std::lock_guard lock(mutex);
  contact = Clock::now();
  change(view);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t count = write(event_fd, &one, sizeof(one));
}

// Changes what the thread should say, and wakes it.
template <typename Change>
void NodeLink::State::tell(const Change& change) {
  const std::lock_guard lock(mutex);
  change(*this);
  news = true;
  changed.notify_all();
}

void NodeLink::State::talk(const LaunchOptions& options, const std::optional<ListeningSocket>& listening) {
  const auto lose = [&](const std::string& why, int status) {
    learn([&](View& known) {
      if (known.lost.empty()) known.lost = why.substr(0, why.find('\n'));
      known.lost_status = status;
    });
  };
  const Clock::time_point deadline = Clock::now() + options.timeout;
  try {
    NodeStore store(listening ? serve_store(*listening, options.timeout)
                              : connect_to_store(options.master_addr, options.master_port, options.timeout,
                                                 "this launcher", "the launcher of node 0"),
                    options, listening.has_value());
    const LaunchWorld world = store.meet(deadline);
    learn([&](View& known) { known.world = world; });
    converse(store);
    store.leave();
  } catch (const c10::ValueError& error) {
    lose(error.what_without_backtrace(), kBadInput);
  } catch (const c10::Error& error) {
    lose(view.world ? c10::str("the launcher of node 0 at ", options.master_addr, " port ", options.master_port,
                               " has gone: it has died or the network between the hosts is cut")
                    : error.what_without_backtrace(),
         kRankFailed);
  } catch (const std::exception& error) {
    lose(c10::str("another program answers at ", options.master_addr, " port ", options.master_port, " (", error.what(),
                  "): choose another --master-port"),
         kRankFailed);
  }
  const std::lock_guard lock(mutex);
  finished = true;
  changed.notify_all();
}

void NodeLink::State::converse(NodeStore& store) {
  int started = -1, failure_reported = -1, outcome_reported = -1;
  bool stop_reported = false, leave = false;
  while (!leave) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, kLookInterval, [&] { return news; });
    news = false;
    const int now = attempt;
    const bool has_failed = failed;
    const std::optional<NodeOutcome> own_outcome = outcome;
    const int stop_signal = stop;
    leave = leaving;
    lock.unlock();

    if (stop_signal != 0 && !std::exchange(stop_reported, true)) store.report_stop(stop_signal);
    if (has_failed && std::exchange(failure_reported, now) != now) store.report_failure(now);
    if (own_outcome && std::exchange(outcome_reported, now) != now) store.report_outcome(now, *own_outcome);
    if (now > started && store.start_attempt(now)) started = now;
    const std::string lost_sentence = store.beat();
    const auto first_failure = store.first_failure(now);
    const auto outcomes = store.outcomes(now);
    const auto stop_request = store.stop_request();
    learn([&](View& known) {
      known.started_attempt = started;
      known.stop = stop_request;
      if (!lost_sentence.empty()) {
        known.lost = lost_sentence;
        known.lost_status = kRankFailed;
      }
      if (now != attempt) return;  // the launcher has gone on
      known.first_failure = first_failure;
      known.outcomes = outcomes;
    });
  }
}

NodeLink::NodeLink(const LaunchOptions& options) : state_(std::make_shared<State>()) {
  const std::optional<ListeningSocket> listening = listen_if_first(options);
  port_ = listening ? listening->port : options.master_port;
  LaunchOptions known = options;
  known.master_port = port_;
  state_->contact = Clock::now() + options.timeout;  // so that the thread's own sentence comes first
  // Detached, because the network can hold it.
  std::thread([state = state_, known, listening] { state->talk(known, listening); }).detach();
}

NodeLink::~NodeLink() {
  std::unique_lock lock(state_->mutex);
  state_->leaving = state_->news = true;
  state_->changed.notify_all();
  if (!state_->view.world) return;  // no one to take leave of
  state_->changed.wait_for(lock, kLeaveTime, [&] { return state_->finished; });
}

int NodeLink::event_fd() const { return state_->event_fd; }

NodeLink::View NodeLink::view() {
  uint64_t ignored;
  [[maybe_unused]] const ssize_t count = read(state_->event_fd, &ignored, sizeof(ignored));
  const std::lock_guard lock(state_->mutex);
  View view = state_->view;
  if (view.lost.empty() && Clock::now() - state_->contact > kNodeTimeout) {
    view.lost = c10::str("node 0's launcher has not answered for ", std::chrono::seconds(kNodeTimeout).count(),
                         " s: it hangs, or the network between the hosts is cut");
    view.lost_status = kRankFailed;
  }
  return view;
}

void NodeLink::begin_attempt(int attempt) {
  state_->tell([&](State& state) {
    state.attempt = attempt;
    state.failed = false;
    state.outcome.reset();
    state.view.first_failure.reset();
    state.view.outcomes.clear();
  });
}

void NodeLink::report_failure() {
  state_->tell([](State& state) { state.failed = true; });
}

void NodeLink::report_outcome(const NodeOutcome& outcome) {
  state_->tell([&](State& state) { state.outcome = outcome; });
}

void NodeLink::report_stop(int signal) {
  state_->tell([&](State& state) {
    if (state.stop == 0) state.stop = signal;
  });
}

}  // namespace optp

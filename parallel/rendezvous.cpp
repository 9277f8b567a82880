#include "parallel/rendezvous.h"

#include <arpa/inet.h>
#include <c10/util/Exception.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace optp {
namespace {

using Clock = std::chrono::steady_clock;
using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// Resolves host and port; on failure the list is empty and `error` says why.
AddressList resolve_host(const std::string& host, int port, std::string& error) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int status = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (status != 0) error = c10::str(host, ": ", gai_strerror(status));
  return {list, &freeaddrinfo};
}

int bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

// One attempt to connect, which ends at `deadline` at the latest. Returns why it failed, or an empty string.
std::string try_connect(const std::string& host, int port, Clock::time_point deadline) {
  std::string error;
  const AddressList list = resolve_host(host, port, error);
  for (const addrinfo* entry = list.get(); entry; entry = entry->ai_next) {
    char numeric[NI_MAXHOST] = "";
    getnameinfo(entry->ai_addr, entry->ai_addrlen, numeric, sizeof(numeric), nullptr, 0, NI_NUMERICHOST);
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - Clock::now());
    const long microseconds = std::max<long>(left.count(), 1000);
    const timeval limit{microseconds / 1000000, microseconds % 1000000};
    const int fd = socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    const bool connected = connect(fd, entry->ai_addr, entry->ai_addrlen) == 0;
    // A blocking connect that runs into SO_SNDTIMEO says "in progress".
    error +=
        c10::str(error.empty() ? "" : ", ", numeric, ": ", errno == EINPROGRESS ? "no answer" : std::strerror(errno));
    if (fd >= 0) close(fd);
    if (connected) return "";
  }
  return error;
}

std::string store_place(const std::string& host, int port) { return c10::str(host, " port ", port); }

double in_seconds(std::chrono::milliseconds time) { return std::chrono::duration<double>(time).count(); }

// TCPStore would wait for the server too, but up to twice the time limit, with pages of warnings and without a reason.
void wait_for_server(const std::string& host, int port, std::chrono::milliseconds timeout, const std::string& who,
                     const std::string& server) {
  const Clock::time_point deadline = Clock::now() + timeout;
  std::string error = try_connect(host, port, deadline);
  while (!error.empty()) {
    TORCH_CHECK_WITH(DistBackendError, Clock::now() < deadline, who, " could not reach the store at ",
                     store_place(host, port), " within ", in_seconds(timeout), " s (", error, "): check that ", server,
                     " runs there, that MASTER_ADDR and MASTER_PORT are the same on every rank, and that no firewall "
                     "is between the hosts");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    error = try_connect(host, port, deadline);
  }
}

// TCPStore counts its time limit in whole seconds and fails at once with less than one.
c10d::TCPStoreOptions store_options(int port, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.waitWorkers = false;
  options.timeout = std::max(timeout, std::chrono::milliseconds(1000));
  return options;
}

// c10d asks for the name of every address that it connects to, 127.0.0.1 included, only to mention it in messages. With
// a name server that does not answer this takes 10 s and more; let this thread's resolver give up after 1 s.
c10::intrusive_ptr<c10d::Store> new_tcp_store(const std::string& host, const c10d::TCPStoreOptions& options) {
  if (res_init() == 0) {
    _res.retrans = 1;
    _res.retry = 1;
  }
  return c10::make_intrusive<c10d::TCPStore>(host, options);
}

c10::intrusive_ptr<c10d::Store> open_store(const LaunchEnv& env, std::chrono::milliseconds timeout,
                                           const std::string& interface) {
  if (env.rank != 0 || env.use_agent_store) {
    return connect_to_store(env.master_addr, env.master_port, timeout, c10::str("rank ", env.rank),
                            env.use_agent_store ? "the launcher" : "rank 0");
  }
  if (is_loopback(env.master_addr)) {
    // localhost can be ::1 as well; clients try both.
    const std::string address = env.master_addr == "localhost" ? "127.0.0.1" : env.master_addr;
    return serve_store(listen_on(address, env.master_port), timeout);
  }
  if (!interface.empty()) return serve_store(listen_on(interface_address(interface), env.master_port), timeout);
  c10d::TCPStoreOptions options = store_options(env.master_port, timeout);
  options.isServer = true;
  return new_tcp_store("127.0.0.1", options);
}

// Adds this rank to those present and waits for the others. Polls, because a wait of TCPStore that ends without
// success prints warnings.
c10::intrusive_ptr<c10d::Store> join_ranks(c10::intrusive_ptr<c10d::Store> server, const LaunchEnv& env,
                                           std::chrono::milliseconds timeout, Clock::time_point deadline) {
  TORCH_CHECK_WITH(DistBackendError, claim_store(*server, env.run_token), "rank ", env.rank,
                   " found the store of another run at ", store_place(env.master_addr, env.master_port),
                   ": give each run a MASTER_PORT of its own");
  const std::string attempt = c10::str("attempt_", env.restart_count);
  const int64_t call = server->add(c10::str(attempt, "/calls_of_rank_", env.rank), 1);
  auto store = c10::make_intrusive<c10d::PrefixStore>(c10::str(attempt, "/call_", call), std::move(server));

  const auto key = [](int rank) { return c10::str("joined/", rank); };
  std::vector<std::string> keys;
  for (int rank = 0; rank < env.world_size; ++rank) keys.push_back(key(rank));
  store->set(key(env.rank), std::vector<uint8_t>{1});
  while (!store->check(keys) && Clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));

  std::string missing;
  for (int rank = 0; rank < env.world_size; ++rank) {
    if (!store->check({key(rank)})) missing += c10::str(missing.empty() ? "" : ", ", rank);
  }
  TORCH_CHECK_WITH(DistBackendError, missing.empty(), "rank ", env.rank, " waited ", in_seconds(timeout), " s at ",
                   store_place(env.master_addr, env.master_port), " for rank ", missing, " of ", env.world_size,
                   ": check that all ranks were started, with the same MASTER_ADDR and MASTER_PORT and each with a "
                   "RANK of its own, and give slow ones more time");
  return store;
}

}  // namespace

ListeningSocket listen_on(const std::string& address, int port) {
  std::string error;
  const AddressList list = resolve_host(address, port, error);
  const int fd = list ? socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
  if (fd >= 0) {
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    // Listening at once makes clients that come before the server runs wait in the queue.
    if (bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
      return {fd, address, bound_port(fd)};
    }
  }
  if (list) error = std::strerror(errno);
  if (fd >= 0) close(fd);
  C10_THROW_ERROR(DistBackendError, c10::str("cannot listen on ", address, " port ", port, " (", error,
                                             "): choose another MASTER_PORT if another program uses this one"));
}

bool claim_store(c10d::Store& store, const std::string& run_token) {
  // Not empty, which would mean that there is none yet. Apart from keys of ranks, which a launcher clears.
  const std::string claim = "run " + run_token;
  const std::vector<uint8_t> bytes(claim.begin(), claim.end());
  return store.compareSet("optp_launch/run", {}, bytes) == bytes;
}

ListeningSocket listen_on_loopback() { return listen_on("127.0.0.1", 0); }

c10::intrusive_ptr<c10d::Store> serve_store(const ListeningSocket& listening, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options = store_options(listening.port, timeout);
  options.isServer = true;
  options.masterListenFd = listening.fd;
  return new_tcp_store(listening.address, options);
}

c10::intrusive_ptr<c10d::Store> connect_to_store(const std::string& host, int port, std::chrono::milliseconds timeout,
                                                 const std::string& who, const std::string& server) {
  wait_for_server(host, port, timeout, who, server);
  return new_tcp_store(host, store_options(port, timeout));
}

c10::intrusive_ptr<c10d::Store> rendezvous(const LaunchEnv& env, std::chrono::milliseconds timeout,
                                           const std::string& interface) {
  if (env.world_size == 1) return c10::make_intrusive<c10d::HashStore>();
  const Clock::time_point deadline = Clock::now() + timeout;
  // TCPStore waits without limit for a server that accepts and then says nothing, so a thread that can be left behind
  // does the work. It has a little longer than it gives itself, so that its own sentence comes first.
  std::packaged_task<c10::intrusive_ptr<c10d::Store>()> meet(
      [=] { return join_ranks(open_store(env, timeout, interface), env, timeout, deadline); });
  std::future<c10::intrusive_ptr<c10d::Store>> store = meet.get_future();
  std::thread(std::move(meet)).detach();
  const std::string port_hint = "check that no other program uses this port, and choose another MASTER_PORT if so";
  TORCH_CHECK_WITH(DistBackendError, store.wait_until(deadline + std::chrono::seconds(1)) == std::future_status::ready,
                   "rank ", env.rank, " got no answer from the store at ",
                   store_place(env.master_addr, env.master_port), " within ", in_seconds(timeout), " s: ", port_hint);
  try {
    return store.get();
  } catch (const c10::DistBackendError&) {
    throw;
  } catch (const c10::DistError& error) {
    C10_THROW_ERROR(DistBackendError, c10::str("rank ", env.rank, " failed to use the store at ",
                                               store_place(env.master_addr, env.master_port), " (",
                                               error.what_without_backtrace(), "): ", port_hint));
  }
}

std::string interface_address(const std::string& name) {
  ifaddrs* list = nullptr;
  TORCH_CHECK(getifaddrs(&list) == 0, "cannot list the network interfaces: ", std::strerror(errno));
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, &freeifaddrs);
  std::string names;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET) continue;
    if (entry->ifa_name == name) {
      char text[INET_ADDRSTRLEN] = "";
      inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr, text, sizeof(text));
      return text;
    }
    names += c10::str(names.empty() ? "" : ", ", entry->ifa_name);
  }
  C10_THROW_ERROR(
      ValueError,
      c10::str("\"", name, "\" is no network interface with an IPv4 address on this host: ", "choose one of ", names));
}

}  // namespace optp

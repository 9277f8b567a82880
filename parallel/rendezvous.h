// Where ranks meet: the key-value store through which they find each other before they talk directly.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <string>

#include "parallel/launch_env.h"

namespace c10d {
class Store;
}

namespace optp {

/// A TCP socket that listens on `address`; the owner closes `fd` or hands it to serve_store.
struct ListeningSocket {
  int fd = -1;
  std::string address;
  int port = 0;
};

/// Listens on 127.0.0.1 alone, on a free port that the kernel chooses. Throws c10::DistBackendError if there is none.
ListeningSocket listen_on_loopback();

/// Listens on one address, a number or a name that is resolved; port 0 lets the kernel choose. Throws
/// c10::DistBackendError if the address is not one of this host's or the port is taken.
ListeningSocket listen_on(const std::string& address, int port);

/// Serves a store on `listening`, which it takes over, for as long as the returned store lives.
c10::intrusive_ptr<c10d::Store> serve_store(const ListeningSocket& listening, std::chrono::milliseconds timeout);

/// Connects to a store that is served at `host` and `port`, for which it waits as long as `timeout`, which later waits
/// on the store have too. `who` and `server` say in errors who could not reach whom, as in "rank 1" and "rank 0".
/// Throws c10::DistBackendError.
c10::intrusive_ptr<c10d::Store> connect_to_store(const std::string& host, int port, std::chrono::milliseconds timeout,
                                                 const std::string& who, const std::string& server);

/// Makes `store` that of the run with this token, if it has not been made another's: ranks with another token are
/// refused. Returns whether it is this run's.
bool claim_store(c10d::Store& store, const std::string& run_token);

/// Meets the other ranks of `env`'s world and returns the store that they share; nobody returns before all have come.
/// Every rank of the world must call it, and equally often: each call gives a store with no keys in it, also when the
/// server is the same, as it is after a restart under torchrun.
///
/// Rank 0 serves the store unless the launcher does (`env.use_agent_store`). It listens on the loopback address alone
/// if MASTER_ADDR is one; otherwise on the address of the network interface `interface`, or on all if that is empty.
/// A world of one rank opens no socket.
///
/// `timeout`, at least 1 s, limits this call and later waits on the store. Throws c10::DistBackendError if rank 0
/// cannot listen, if the store cannot be reached or is another run's, or if other ranks do not come in time.
c10::intrusive_ptr<c10d::Store> rendezvous(const LaunchEnv& env, std::chrono::milliseconds timeout,
                                           const std::string& interface = "");

/// The IPv4 address of the network interface `name`. Throws c10::ValueError, listing the interfaces, if there is none.
std::string interface_address(const std::string& name);

}  // namespace optp

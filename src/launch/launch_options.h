// What `optp launch` is asked to do.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace optp {

struct LaunchOptions {
  int ranks = 1;                 // of this host
  int nodes = 1;                 // hosts, each with a launcher of its own
  std::optional<int> node_rank;  // none: the launcher that can listen at the address is node 0, others as they come
  std::string master_addr = "127.0.0.1";
  int master_port = 0;  // 0: a free one, on a single host
  std::string run_id;   // empty: a random one
  int max_restarts = 0;
  std::filesystem::path log_dir;                                  // empty: no logs
  std::chrono::milliseconds timeout = std::chrono::seconds(600);  // for the launchers of all hosts to come
  std::vector<std::string> program;                               // its name or path, and its arguments
};

}  // namespace optp

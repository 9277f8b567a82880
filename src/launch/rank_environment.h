// What a rank is told about its place in the world: torchrun's environment variables.
#pragma once

#include <string>

#include "src/launch/spawn.h"

namespace optp {

/// What the ranks of one host share.
struct RankPlace {
  int first_rank = 0;  // of this host
  int world_size = 1;
  int local_world_size = 1;
  int node_rank = 0;
  int nodes = 1;
  std::string master_addr = "127.0.0.1";
  int master_port = 0;
  int restart_count = 0;
  int max_restarts = 0;
  std::string run_id;
  std::string run_token;
};

/// RANK, LOCAL_RANK and all others that torchrun sets, for the rank with that number on this host. The store at
/// MASTER_ADDR and MASTER_PORT is the launcher's (TORCHELASTIC_USE_AGENT_STORE). OPTP_RUN_TOKEN is for optp alone.
Variables rank_variables(const RankPlace& place, int local_rank);

/// Whether a run may have this name: that of a folder in --log-dir.
bool is_run_id(const std::string& name);

/// A name for a run that no other run has.
std::string random_run_id();

/// What keeps the ranks of one run from meeting those of another: 128 random bits.
std::string random_run_token();

}  // namespace optp

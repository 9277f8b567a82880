// Which rank this process is, as the program that started it says in environment variables.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace optp {

struct LaunchEnv {
  int rank = 0;
  int local_rank = 0;  ///< among the ranks of this host
  int world_size = 1;
  int local_world_size = 1;  ///< ranks on this host
  std::string master_addr;   ///< empty if world_size is 1 and nobody gave one
  int master_port = 0;
  bool use_agent_store = false;  ///< the launcher serves the store, rank 0 is a client like all others
  int restart_count = 0;
  std::string run_token;  ///< the same on all ranks of a run, and on no other run's; empty if nobody gave one
};

/// Looks up one environment variable; nullopt when it is not set.
using EnvGetter = std::function<std::optional<std::string>(const std::string&)>;

/// The environment of this process.
std::optional<std::string> process_environment(const std::string& name);

/// Reads the variables of the first launcher found, or returns nullopt if none started this process:
///
/// 1. torchrun, or anyone who sets its variables: RANK and WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE,
///    TORCHELASTIC_USE_AGENT_STORE, TORCHELASTIC_RESTART_COUNT.
/// 2. Open MPI: OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE. It comes before Slurm because mpirun starts its
///    daemons on other hosts with srun, so its ranks inherit the Slurm variables of the daemon.
/// 3. Slurm, only inside a step of several tasks: a batch script has SLURM_PROCID without srun, and a step of one task
///    is how an interactive shell is opened.
///
/// The run's token is OPTP_RUN_TOKEN, which optp's own launchers draw at random, else what the launcher calls the run:
/// TORCHELASTIC_RUN_ID, PMIX_NAMESPACE, or SLURM_JOB_ID and the step.
///
/// All take MASTER_ADDR and MASTER_PORT, which a world of several ranks must have. LOCAL_RANK and LOCAL_WORLD_SIZE come
/// together or not at all; without them all ranks are on this host if MASTER_ADDR is a loopback address, and otherwise
/// they are required, since ranks of one host that do not know of each other would take all its cores each.
///
/// Throws c10::ValueError, naming the variable and its value, if one is missing, malformed or contradicts another.
std::optional<LaunchEnv> read_launch_env(const EnvGetter& get = process_environment);

/// Whether `address` is spelt as this host's loopback: localhost, 127.x.y.z or ::1. Names are not resolved, because a
/// host may map its own name to a loopback address that means nothing to other hosts.
bool is_loopback(const std::string& address);

}  // namespace optp

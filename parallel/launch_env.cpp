#include "parallel/launch_env.h"

#include <arpa/inet.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <string_view>

namespace optp {
namespace {

// The variables of one launcher, and what the user can do if they are wrong.
struct LauncherNames {
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_world_size;
  const char* remedy;
};

constexpr LauncherNames kTorchrun = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                                     "set it as torchrun does, or unset RANK and WORLD_SIZE to run without a launcher"};
constexpr LauncherNames kOpenMpi = {
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
    "start the ranks with mpirun, or unset OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE to run without a launcher"};
constexpr const char* kSlurmRemedy = "start the ranks with srun, or unset SLURM_STEP_ID to run without Slurm";

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int checked_number(const std::string& name, const std::string& text, int low, int high, const char* remedy) {
  const std::optional<int> value = whole_number(text);
  TORCH_CHECK_VALUE(value && *value >= low && *value <= high, name, " is \"", text, "\", not a whole number from ", low,
                    " to ", high, ": ", remedy);
  return *value;
}

int required_number(const EnvGetter& get, const std::string& name, int low, const std::string& because,
                    const char* remedy) {
  const std::optional<std::string> text = get(name);
  TORCH_CHECK_VALUE(text, name, " is not set, but ", because, ": ", remedy);
  return checked_number(name, *text, low, INT_MAX, remedy);
}

void check_below(const std::string& name, int value, const std::string& limit_name, int limit, const char* remedy) {
  TORCH_CHECK_VALUE(value < limit, name, " is ", value, " but must be less than ", limit_name, ", which is ", limit,
                    ": ", remedy);
}

void check_local_size(const std::string& name, int local_size, const std::string& size_name, int size,
                      const char* remedy) {
  TORCH_CHECK_VALUE(local_size <= size, name, " is ", local_size, ", more than ", size_name, ", which is ", size, ": ",
                    remedy);
}

// MASTER_ADDR and MASTER_PORT. `world` says why they are needed, as in "WORLD_SIZE is 2".
void read_master(const EnvGetter& get, const std::string& world, LaunchEnv& env) {
  const std::optional<std::string> address = get("MASTER_ADDR");
  const std::optional<std::string> port = get("MASTER_PORT");
  const bool needed = env.world_size > 1;
  TORCH_CHECK_VALUE(address || !needed, "MASTER_ADDR is not set, but ", world,
                    ": export the address of the host of rank 0 (127.0.0.1 if all ranks run on one host)");
  TORCH_CHECK_VALUE(!address || !address->empty(),
                    "MASTER_ADDR is empty: set it to the address of the host of rank 0 (127.0.0.1 if all ranks run on "
                    "one host)");
  TORCH_CHECK_VALUE(port || !needed, "MASTER_PORT is not set, but ", world,
                    ": export a port that is free on the host of rank 0, such as 29500");
  env.master_addr = address.value_or("");
  if (port) {
    env.master_port = checked_number("MASTER_PORT", *port, 1, 65535,
                                     "set it to a port that is free on the host of rank 0, such as 29500");
  }
}

LaunchEnv read_ranks(const EnvGetter& get, const LauncherNames& names) {
  LaunchEnv env;
  env.rank = required_number(get, names.rank, 0, c10::str(names.world_size, " is ", get(names.world_size).value_or("")),
                             names.remedy);
  env.world_size = required_number(get, names.world_size, 1, c10::str(names.rank, " is ", env.rank), names.remedy);
  check_below(names.rank, env.rank, names.world_size, env.world_size, names.remedy);
  read_master(get, c10::str(names.world_size, " is ", env.world_size), env);

  const bool on_this_host = env.world_size == 1 || is_loopback(env.master_addr);
  if (!get(names.local_rank) && !get(names.local_world_size) && on_this_host) {
    env.local_rank = env.rank;
    env.local_world_size = env.world_size;
    return env;
  }
  std::string because = c10::str("MASTER_ADDR is ", env.master_addr, ", so ranks can be on several hosts");
  for (const char* name : {names.local_rank, names.local_world_size}) {
    if (const std::optional<std::string> text = get(name)) because = c10::str(name, " is ", *text);
  }
  env.local_rank = required_number(get, names.local_rank, 0, because, names.remedy);
  env.local_world_size = required_number(get, names.local_world_size, 1, because, names.remedy);
  check_below(names.local_rank, env.local_rank, names.local_world_size, env.local_world_size, names.remedy);
  check_local_size(names.local_world_size, env.local_world_size, names.world_size, env.world_size, names.remedy);
  return env;
}

// The entry for `node` of a list such as "4(x2),3": 4 tasks on each of the first two nodes, 3 on the third.
int tasks_on_node(const std::string& name, const std::string& list, int node) {
  int first_node = 0;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    std::string_view entry = std::string_view(list).substr(begin, end - begin);
    std::optional<int> repeats = 1;
    if (const size_t open = entry.find("(x"); open != std::string_view::npos && entry.back() == ')') {
      repeats = whole_number(entry.substr(open + 2, entry.size() - open - 3));
      entry = entry.substr(0, open);
    }
    const std::optional<int> tasks = whole_number(entry);
    TORCH_CHECK_VALUE(tasks && repeats && *tasks >= 1 && *repeats >= 1 && *repeats <= INT_MAX - first_node, name,
                      " is \"", list, "\", not a list such as 4(x2),3: ", kSlurmRemedy);
    first_node += *repeats;
    if (node < first_node) return *tasks;
    begin = end + 1;
  }
  C10_THROW_ERROR(ValueError, c10::str("SLURM_NODEID is ", node, ", but ", name, " (", list, ") names ", first_node,
                                       " nodes: ", kSlurmRemedy));
}

std::optional<LaunchEnv> read_slurm(const EnvGetter& get) {
  const std::optional<std::string> step = get("SLURM_STEP_ID");
  if (!step) return std::nullopt;
  const std::string because = c10::str("SLURM_STEP_ID is ", *step);
  const std::string size_name = get("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  LaunchEnv env;
  env.world_size = required_number(get, size_name, 1, because, kSlurmRemedy);
  if (env.world_size == 1) return std::nullopt;
  env.rank = required_number(get, "SLURM_PROCID", 0, because, kSlurmRemedy);
  check_below("SLURM_PROCID", env.rank, size_name, env.world_size, kSlurmRemedy);
  read_master(get, c10::str(size_name, " is ", env.world_size), env);

  const std::string list_name = get("SLURM_STEP_TASKS_PER_NODE") ? "SLURM_STEP_TASKS_PER_NODE" : "SLURM_TASKS_PER_NODE";
  const std::optional<std::string> list = get(list_name);
  TORCH_CHECK_VALUE(list, "SLURM_STEP_TASKS_PER_NODE is not set, but ", because, ": ", kSlurmRemedy);
  env.local_world_size =
      tasks_on_node(list_name, *list, required_number(get, "SLURM_NODEID", 0, because, kSlurmRemedy));
  env.local_rank = required_number(get, "SLURM_LOCALID", 0, because, kSlurmRemedy);
  check_below("SLURM_LOCALID", env.local_rank, list_name, env.local_world_size, kSlurmRemedy);
  check_local_size(list_name, env.local_world_size, size_name, env.world_size, kSlurmRemedy);
  return env;
}

LaunchEnv read_torchrun(const EnvGetter& get) {
  LaunchEnv env = read_ranks(get, kTorchrun);
  if (const std::optional<std::string> agent = get("TORCHELASTIC_USE_AGENT_STORE")) {
    TORCH_CHECK_VALUE(*agent == "True" || *agent == "False", "TORCHELASTIC_USE_AGENT_STORE is \"", *agent,
                      "\", neither True nor False: ", kTorchrun.remedy);
    env.use_agent_store = *agent == "True";
  }
  if (const std::optional<std::string> count = get("TORCHELASTIC_RESTART_COUNT")) {
    env.restart_count = checked_number("TORCHELASTIC_RESTART_COUNT", *count, 0, INT_MAX, kTorchrun.remedy);
  }
  return env;
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<LaunchEnv> read_launch_env(const EnvGetter& get) {
  std::optional<LaunchEnv> env;
  std::string run;
  const auto text = [&](const char* name) { return get(name).value_or(""); };
  if (get(kTorchrun.rank) || get(kTorchrun.world_size)) {
    env = read_torchrun(get);
    run = text("TORCHELASTIC_RUN_ID");
  } else if (get(kOpenMpi.rank) || get(kOpenMpi.world_size)) {
    env = read_ranks(get, kOpenMpi);
    run = text("PMIX_NAMESPACE");
  } else if ((env = read_slurm(get))) {
    run = text("SLURM_JOB_ID") + "." + text("SLURM_STEP_ID");
  }
  if (env) env->run_token = get("OPTP_RUN_TOKEN").value_or(run);
  return env;
}

bool is_loopback(const std::string& address) {
  in_addr ignored{};
  const bool ipv4_loopback = address.starts_with("127.") && inet_pton(AF_INET, address.c_str(), &ignored) == 1;
  return ipv4_loopback || address == "localhost" || address == "::1";
}

}  // namespace optp

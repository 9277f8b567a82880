// optp launch
#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <set>
#include <thread>

#include "src/cli/commands.h"
#include "src/launch/launcher.h"
#include "src/launch/rank_environment.h"

namespace optp::cli {
namespace {

constexpr int kDefaultPort = 29500;  // torchrun's

struct LaunchArguments {
  std::string ranks = "1", nodes = "1", node_rank, master_addr, master_port, endpoint, run_id, max_restarts = "0";
  std::string log_dir;
  double timeout = 600;
  bool standalone = false, no_python = false;
};

const std::set<std::string> kFlags = {"--standalone", "--no-python", "--help", "-h"};

int whole_number(const std::string& option, const std::string& text, int low, int high, const std::string& what) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  TORCH_CHECK_VALUE(error == std::errc() && stop == end && value >= low && value <= high, option, " is \"", text,
                    "\": give ", what);
  return value;
}

// "host", "host:port" or "[::1]:port".
void read_endpoint(const std::string& endpoint, LaunchOptions& options) {
  const size_t colon = endpoint.rfind(':');
  const bool bracketed = endpoint.starts_with("[");
  const size_t close = endpoint.find(']');
  const bool has_port = colon != std::string::npos && (!bracketed || colon > close);
  std::string host = endpoint.substr(0, has_port ? colon : endpoint.size());
  if (bracketed && host.ends_with("]")) host = host.substr(1, host.size() - 2);
  TORCH_CHECK_VALUE(!host.empty() && (bracketed || host.find(':') == std::string::npos), "--rdzv-endpoint is \"",
                    endpoint, "\": give HOST:PORT, an IPv6 address as [ADDRESS]:PORT");
  options.master_addr = host;
  options.master_port = has_port ? whole_number("the port of --rdzv-endpoint", endpoint.substr(colon + 1), 1, 65535,
                                                "a port from 1 to 65535")
                                 : kDefaultPort;
}

void read_place(const LaunchArguments& arguments, LaunchOptions& options) {
  const bool has_master = !arguments.master_addr.empty() || !arguments.master_port.empty();
  TORCH_CHECK_VALUE(!arguments.standalone || options.nodes == 1, "--standalone is for one host, but --nnodes is ",
                    options.nodes, ": leave one of them out");
  if (arguments.standalone) return;  // as with torchrun, what else is said about the place does not count
  TORCH_CHECK_VALUE(arguments.endpoint.empty() || !has_master, "--rdzv-endpoint is ", arguments.endpoint,
                    ", and --master-addr or --master-port is given as well: leave one of them out");
  TORCH_CHECK_VALUE(options.nodes == 1 || !arguments.endpoint.empty() || !arguments.master_addr.empty(), "--nnodes is ",
                    options.nodes,
                    ", but nothing says where the hosts meet: give the address of the first with --master-addr");
  if (!arguments.endpoint.empty()) read_endpoint(arguments.endpoint, options);
  if (!arguments.master_addr.empty()) options.master_addr = arguments.master_addr;
  if (!arguments.master_port.empty()) {
    options.master_port = whole_number("--master-port", arguments.master_port, 1, 65535, "a port from 1 to 65535");
  }
  if (options.nodes > 1 && options.master_port == 0) options.master_port = kDefaultPort;
  if (!arguments.node_rank.empty()) {
    options.node_rank =
        whole_number("--node-rank", arguments.node_rank, 0, options.nodes - 1,
                     "this host's number, from 0 to --nnodes - 1, which is " + std::to_string(options.nodes - 1));
  }
}

LaunchOptions launch_options(const LaunchArguments& arguments, std::vector<std::string> program) {
  LaunchOptions options;
  constexpr int kMost = 100000;
  if (arguments.ranks == "auto" || arguments.ranks == "cpu") {
    options.ranks = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  } else {
    options.ranks = whole_number("--nproc-per-node", arguments.ranks, 1, 4096,
                                 "a number of ranks from 1 on, or cpu for one a core");
  }
  TORCH_CHECK_VALUE(arguments.nodes.find(':') == std::string::npos || arguments.nodes == "1:1", "--nnodes is \"",
                    arguments.nodes, "\": the number of hosts is fixed while a program runs, give one number");
  options.nodes = arguments.nodes == "1:1"
                      ? 1
                      : whole_number("--nnodes", arguments.nodes, 1, kMost, "the number of hosts, from 1 on");
  read_place(arguments, options);
  options.run_id = arguments.run_id;
  TORCH_CHECK_VALUE(is_run_id(options.run_id), "--rdzv-id is \"", options.run_id,
                    "\": give a name that can be a folder's, without a slash");
  options.max_restarts = whole_number("--max-restarts", arguments.max_restarts, 0, kMost, "a number from 0 on");
  options.log_dir = arguments.log_dir;
  options.timeout = std::chrono::milliseconds(static_cast<int64_t>(arguments.timeout * 1000));
  TORCH_CHECK_VALUE(!program.empty(), "launch needs a program: optp launch --nproc-per-node 2 -- PROGRAM ARGUMENTS...");
  options.program = std::move(program);
  return options;
}

}  // namespace

LaunchSplit split_launch_arguments(const std::vector<std::string>& arguments) {
  LaunchSplit split;
  size_t i = 0;
  for (; i < arguments.size(); ++i) {
    std::string argument = arguments[i];
    if (i >= 2) {
      if (argument == "--") {
        ++i;
        break;
      }
      if (!argument.starts_with("-")) break;
      const size_t equals = std::min(argument.find('='), argument.size());
      std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(equals), '_', '-');
      if (equals == argument.size() && !kFlags.contains(argument) && i + 1 < arguments.size()) {
        split.own.push_back(argument);
        argument = arguments[++i];
      }
    }
    split.own.push_back(argument);
  }
  split.program.assign(arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
  return split;
}

void add_launch(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<LaunchArguments>();
  CLI::App* command = app.add_subcommand(
      "launch",
      "Start the ranks of any program, on one host or several: optp launch [OPTIONS] -- PROGRAM ARGUMENTS...");
  command->add_option("--nproc-per-node", arguments->ranks, "Ranks on this host; cpu: one a core")->type_name("N");
  command->add_option("--max-restarts", arguments->max_restarts, "How often all ranks start again after a failure")
      ->type_name("N");
  command
      ->add_option("--log-dir", arguments->log_dir,
                   "Keep what each rank prints in DIR/RUN-ID/attempt_K/RANK/stdout.log and stderr.log")
      ->type_name("DIR");
  const char* hosts = "Several hosts (run the same command on each)";
  command->add_option("--nnodes", arguments->nodes, "Hosts")->type_name("N")->group(hosts);
  command
      ->add_option("--node-rank", arguments->node_rank,
                   "This host's number; 0 is at --master-addr (default: as the hosts come)")
      ->type_name("R")
      ->group(hosts);
  command->add_option("--master-addr", arguments->master_addr, "Address of the first host")
      ->type_name("ADDRESS")
      ->group(hosts);
  command
      ->add_option("--master-port", arguments->master_port,
                   "Port at which all meet there (default: 29500; on one host a free one)")
      ->type_name("PORT")
      ->group(hosts);
  command->add_option("--rdzv-endpoint", arguments->endpoint, "Both in one")->type_name("HOST:PORT")->group(hosts);
  command->add_option("--rdzv-id", arguments->run_id, "Name of the run (default: a random one)")
      ->type_name("ID")
      ->group(hosts);
  command->add_option("--timeout", arguments->timeout, "Longest wait for the other hosts, in seconds")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str()
      ->group(hosts);
  const char* torchrun = "As torchrun has them";
  command->add_flag("--standalone", arguments->standalone, "One host, a free port: the default")->group(torchrun);
  command->add_flag("--no-python", arguments->no_python, "The program is run as it is: always so")->group(torchrun);
  command->add_option("--rdzv-backend", "static, c10d: the same here")
      ->check(CLI::IsMember({"static", "c10d"}))
      ->group(torchrun);
  command->footer(
      "Every rank gets torchrun's environment: RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, GROUP_RANK, "
      "MASTER_ADDR,\n"
      "MASTER_PORT, TORCHELASTIC_RESTART_COUNT and so on; OMP_NUM_THREADS, if not set, is this host's cores / its "
      "ranks.\n"
      "Lines that a rank prints come out as \"[rank 1] text\". When a rank fails, the others get 3 s, then SIGTERM, "
      "and\n"
      "SIGKILL 5 s later; the last words name the rank that failed first, and its status is the launcher's (128 + n\n"
      "after signal n; 2 bad usage, 3 a host was lost, 130 and 143 stopped). No process outlives the launcher.\n"
      "torchrun's spellings with underscores (--nproc_per_node) are understood as well.\n"
      "\n"
      "Examples:\n"
      "  one host:    optp launch --nproc-per-node 4 -- optp train --config run.json --tp 2 --dp 2\n"
      "  unattended:  optp launch --nproc-per-node 4 --max-restarts 3 --log-dir logs -- \\\n"
      "                 optp train --config run.json --tp 4 --output run --resume\n"
      "  Python:      optp launch --nproc-per-node 2 -- python3 script.py\n"
      "  two hosts:   optp launch --nnodes 2 --node-rank 0 --master-addr 10.0.0.1 --nproc-per-node 2 -- \\\n"
      "                 optp train --config run.json --tp 4 --interface eth0      and on the other --node-rank 1\n"
      "  Slurm:       srun --nodes 2 --ntasks-per-node 1 optp launch --nnodes 2 --nproc-per-node 8 \\\n"
      "                 --rdzv-endpoint $(scontrol show hostnames | head -n 1):29500 -- PROGRAM ...");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& all) {
      return launch(launch_options(*arguments, split_launch_arguments(all).program));
    };
  });
}

}  // namespace optp::cli

#include "src/cli/common_options.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "parallel/launch_env.h"
#include "parallel/product_library.h"
#include "parallel/rendezvous.h"
#include "src/checkpoint/atomic_file.h"
#include "src/cli/number_checks.h"
#include "src/launch/local_ranks.h"
#include "src/log.h"

namespace optp::cli {

void add_common_options(CLI::App& command, CommonOptions& options, const std::vector<std::string>& dtypes) {
  auto* model = command.add_option("--model", options.model,
                                   "A preset (opt-tiny, opt-125m, ..., opt-175b), a folder in Hugging Face's layout, a "
                                   "training checkpoint or a TorchScript file that optp wrote");
  if (options.model.empty()) {
    model->required();
  } else {
    model->capture_default_str();
  }
  command.add_option("--tp", options.tp, "Ranks that share the model")->check(kPositive)->capture_default_str();
  command.add_option("--threads", options.threads, "Threads of a rank (default: this host's cores / its ranks)")
      ->check(kPositive);
  command.add_option("--dtype", options.dtype, "Arithmetic")->check(CLI::IsMember(dtypes))->capture_default_str();
  command
      .add_option("--products", options.products, "Library of large float32 products (auto: as suits the processor)")
      ->check(CLI::IsMember({"auto", "mkl", "onednn"}))
      ->capture_default_str();
  command.add_option("--seed", options.seed, "Seed of everything random")->capture_default_str();
  command.add_option("--json", options.json, "Write the result as JSON to this file");

  add_preset_options(command, options);

  const char* processes = "Processes";
  command
      .add_option(
          "--comm", options.comm,
          "Collectives: shm (memory that ranks of one host share), gloo, or shm where it can be and gloo elsewhere")
      ->check(CLI::IsMember({"auto", "gloo", "shm"}))
      ->capture_default_str()
      ->group(processes);
  command
      .add_flag("--check-collectives", options.check_collectives,
                "Over Gloo too, compare before each collective what the ranks are about to do")
      ->group(processes);
  command.add_option("--timeout", options.timeout, "Longest wait for another rank, in seconds")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str()
      ->group(processes);
  command.add_option("--interface", options.interface, "Network interface between hosts (one host uses loopback)")
      ->group(processes);
  add_log_options(command, options);
}

void add_preset_options(CLI::App& command, CommonOptions& options) {
  const char* preset = "Change a preset";
  command.add_option("--vocab-size", options.vocab_size, "Words")->check(kPositive)->group(preset);
  command.add_option("--hidden-size", options.hidden_size, "Width")->check(kPositive)->group(preset);
  command.add_option("--num-layers", options.num_layers, "Decoder layers")->check(kPositive)->group(preset);
  command.add_option("--num-heads", options.num_heads, "Attention heads")->check(kPositive)->group(preset);
  command.add_option("--ffn-dim", options.ffn_dim, "Width inside the feed-forward (4 x hidden)")
      ->check(kPositive)
      ->group(preset);
  command.add_option("--max-positions", options.max_positions, "Longest sequence")->check(kPositive)->group(preset);
}

void add_log_options(CLI::App& command, CommonOptions& options) {
  const char* processes = "Processes";
  command.add_option("--log-level", options.log_level, "Least level said on standard error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str()
      ->group(processes);
  command.add_flag("--quiet", options.quiet, "Say only warnings and errors on standard error")->group(processes);
  // Read before parsing (config_file.h); here for the help.
  command.add_option("--config", "Read options from a JSON file, {\"tp\": 2, ...}; the command line wins")
      ->group(processes);
}

void add_dp_option(CLI::App& command, CommonOptions& options) {
  command.add_option("--dp", options.dp, "Copies of the model, each with its part of the batch")
      ->check(kPositive)
      ->capture_default_str();
}

void add_weights_option(CLI::App& command, CommonOptions& options) {
  command
      .add_option("--weights", options.weights,
                  "What the weights are kept as; fewer bits decode faster (default: as --dtype)")
      ->check(CLI::IsMember({"float32", "bfloat16", "int8"}));
}

ModelSource model_of(const CommonOptions& options) {
  ModelSource source = find_model(options.model);
  const bool changed = options.vocab_size || options.hidden_size || options.num_layers || options.num_heads ||
                       options.ffn_dim || options.max_positions;
  TORCH_CHECK_VALUE(!changed || !source.path, "--model ", options.model,
                    " is a stored model, whose sizes are fixed; leave out --vocab-size, --hidden-size, --num-layers, "
                    "--num-heads, --ffn-dim and --max-positions, or name a preset.");
  OptConfig& config = source.config;
  if (options.vocab_size) config.vocab_size(*options.vocab_size);
  if (options.num_layers) config.num_hidden_layers(*options.num_layers);
  if (options.max_positions) config.max_position_embeddings(*options.max_positions);
  if (options.hidden_size) {
    const int64_t hidden = *options.hidden_size;
    if (config.has_projections()) config.word_embed_proj_dim(std::max<int64_t>(1, hidden / 2));
    config.hidden_size(hidden).ffn_dim(4 * hidden);
    // The preset's heads, or the next smaller number that divides the new width.
    int64_t heads = std::min(config.num_attention_heads(), hidden);
    while (hidden % heads != 0) --heads;
    config.num_attention_heads(heads);
  }
  if (options.num_heads) config.num_attention_heads(*options.num_heads);
  if (options.ffn_dim) config.ffn_dim(*options.ffn_dim);
  config.validate();
  TORCH_CHECK_VALUE(options.tp <= config.num_attention_heads(), "--tp ", options.tp, " is more than the model's ",
                    config.num_attention_heads(), " heads; use at most one rank a head.");
  return source;
}

at::ScalarType dtype_of(const std::string& name) {
  return name == "float64"    ? at::kDouble
         : name == "bfloat16" ? at::kBFloat16
         : name == "float16"  ? at::kHalf
                              : at::kFloat;
}

at::ScalarType weights_of(const CommonOptions& options) {
  const std::string& weights = options.weights.value_or(options.dtype);
  TORCH_CHECK_VALUE(weights == options.dtype || options.dtype == "float32", "--weights ", weights,
                    " goes with float32 arithmetic, not with --dtype ", options.dtype, "; leave one of them out.");
  return weights == "int8" ? at::kChar : dtype_of(weights);
}

LogLevel log_level_of(const std::string& name, bool quiet) {
  if (quiet) return LogLevel::warn;
  return name == "debug"  ? LogLevel::debug
         : name == "info" ? LogLevel::info
         : name == "warn" ? LogLevel::warn
                          : LogLevel::error;
}

namespace {

// Rank 0 decides: hosts may differ.
void choose_product_library(const CommonOptions& options, const Mesh& mesh) {
  const bool onednn =
      options.products == "auto" ? preferred_product_library() == ProductLibrary::onednn : options.products == "onednn";
  at::Tensor choice = at::scalar_tensor(onednn ? 1 : 0, at::kLong);
  mesh.world().broadcast_(choice, 0, "product library");
  const bool chosen = choice.item<int64_t>() == 1;
  set_product_library(chosen ? ProductLibrary::onednn : ProductLibrary::mkl);
  if (options.dtype != "float32") return;
  on_first_product([chosen] { log_line(LogLevel::info, c10::str("products by ", chosen ? "oneDNN" : "MKL")); });
}

}  // namespace

Participation join(const CommonOptions& options, const std::vector<std::string>& arguments) {
  std::optional<LaunchEnv> env = read_launch_env();
  const int64_t world_size = options.tp * options.dp;
  if (!env && world_size > 1) return {.exit_status = run_local_ranks(static_cast<int>(world_size), arguments)};
  if (!env) env = LaunchEnv{};
  TORCH_CHECK_VALUE(env->world_size == world_size, "--tp ", options.tp, " x --dp ", options.dp, " needs ", world_size,
                    " ranks, but the launcher started ", env->world_size, "; make the two agree.");
  set_log(log_level_of(options.log_level, options.quiet), env->rank == 0);
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  at::set_num_threads(
      static_cast<int>(options.threads > 0 ? options.threads : std::max<int64_t>(1, cores / env->local_world_size)));

  const std::chrono::milliseconds timeout(static_cast<int64_t>(options.timeout * 1000));
  Mesh::Options mesh{.tp = options.tp, .dp = options.dp, .timeout = timeout};
  mesh.comm = options.comm == "gloo"  ? Mesh::Comm::gloo
              : options.comm == "shm" ? Mesh::Comm::shared_memory
                                      : Mesh::Comm::automatic;
  mesh.check_collectives = options.check_collectives;
  if (!options.interface.empty()) {
    mesh.address = interface_address(options.interface);
  } else {
    TORCH_CHECK_VALUE(env->world_size == env->local_world_size,
                      "the ranks are on several hosts; name the network "
                      "interface that joins them with --interface.");
  }
  mesh.serves_store = env->rank == 0 && !env->use_agent_store;
  const std::string who = c10::str("rank ", env->rank, " of ", env->world_size, " (process ", getpid(), "): ");
  auto status_signal = std::make_unique<StatusSignal>([who] { return who + "meeting the other ranks"; });
  Participation participation{.mesh =
                                  Mesh(rendezvous(*env, timeout, options.interface), env->rank, env->world_size, mesh)};
  status_signal->set_report([who, joined = participation.mesh] { return who + joined.watch().report(); });
  participation.status_signal = std::move(status_signal);
  if (const std::string& reason = participation.mesh.why_not_shared_memory(); !reason.empty()) {
    log_line(LogLevel::info, "collectives over Gloo: " + reason);
  }
  choose_product_library(options, participation.mesh);
  return participation;
}

void write_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

}  // namespace optp::cli

// Ranks that write and read training checkpoints of made-up content, for tests that kill them and for
// scripts/checkpoint_campaign.py:
//
//   checkpoint_program write FOLDER TP DP FIRST LAST ELEMENTS   the steps FIRST to LAST, of which the last 2 stay
//   checkpoint_program check FOLDER TP DP                       compares every checkpoint with what its step must hold
//   checkpoint_program whole FILE STEP                          the whole tensors of a step, as a safetensors file
//
// ELEMENTS more float32 numbers, cut over the ranks, make a step as large as wanted.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "parallel/launch_env.h"
#include "parallel/rendezvous.h"
#include "src/checkpoint/safetensors_writer.h"
#include "src/launch/local_ranks.h"
#include "src/log.h"
#include "tests/checkpoint/sharded_content.h"
#include "tests/launch/program_main.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

// The ballast of a step: number i is i + 1000 steps.
std::vector<NamedShard> ballast(int64_t step, int64_t elements, const Mesh& mesh) {
  const int64_t parts = mesh.tensor().size();
  ParameterShard shard{.shape = {elements}, .dim = 0, .layout = ShardLayout(elements, parts), .part = 0};
  shard.part = mesh.tensor().rank();
  const Range range = shard.range();
  return {{"ballast", at::arange(range.start, range.end(), at::kFloat).add_(1000 * static_cast<double>(step)), shard}};
}

void write(const fs::path& folder, int64_t first, int64_t last, int64_t elements, const Mesh& mesh) {
  if (mesh.world().rank() == 0) remove_unfinished_checkpoints(folder);
  for (int64_t step = first; step <= last; ++step) {
    CheckpointContent content = testing::content_of(static_cast<uint64_t>(step), mesh);
    for (NamedShard& shard : ballast(step, elements, mesh)) content.parameters.push_back(shard);
    content.trainer_state = nlohmann::json{{"step", step}, {"elements", elements}}.dump();
    if (mesh.world().rank() == 0) std::cout << "writing " << step << "\n" << std::flush;
    write_training_checkpoint(folder / checkpoint_name(step), content, mesh);
    if (mesh.world().rank() == 0) {
      std::cout << "written " << step << "\n" << std::flush;
      remove_old_checkpoints(folder, 2);
    }
  }
}

std::string first_difference(const fs::path& path, const Mesh& mesh) {
  const TrainingCheckpoint checkpoint(path, mesh);
  const auto state = nlohmann::json::parse(checkpoint.trainer_state());
  const auto step = state.at("step").get<int64_t>();
  if (path.filename() != checkpoint_name(step)) return "the step";
  const CheckpointContent expected = testing::content_of(static_cast<uint64_t>(step), mesh);
  std::vector<NamedShard> parameters = expected.parameters;
  for (NamedShard& shard : ballast(step, state.at("elements").get<int64_t>(), mesh)) parameters.push_back(shard);
  std::vector<NamedShard> loaded = parameters;
  for (NamedShard& shard : loaded) shard.tensor = at::ones_like(shard.tensor);
  checkpoint.load_parameters(loaded);
  std::string first = testing::difference(loaded, parameters);
  if (!first.empty()) return first;
  loaded = expected.optimizer_state;
  for (NamedShard& shard : loaded) shard.tensor = at::ones_like(shard.tensor);
  checkpoint.load_optimizer_state(loaded);
  return testing::difference(loaded, expected.optimizer_state);
}

int check(const fs::path& folder, const Mesh& mesh) {
  int status = 0;
  for (const fs::path& path : whole_checkpoints(folder)) {
    const std::string different = first_difference(path, mesh);
    if (!different.empty()) status = 1;
    if (mesh.world().rank() != 0) continue;
    const std::string name = path.filename().string();
    std::cout << name << (different.empty() ? " is whole" : " differs in " + different) << "\n" << std::flush;
  }
  return status;
}

int write_whole(const fs::path& file, uint64_t step) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [part, list] : {std::pair{"parameters", testing::whole_parameters(step)},
                                   {"optimizer_state", testing::whole_optimizer_state(step)}}) {
    for (const testing::WholeTensor& entry : list) tensors.emplace_back(part + ("/" + entry.name), entry.tensor);
  }
  write_safetensors(file, tensors);
  return 0;
}

int run(const std::vector<std::string>& arguments) {
  const std::string& what = arguments.at(1);
  if (what == "whole") return write_whole(arguments.at(2), std::stoull(arguments.at(3)));
  const int64_t tp = std::stoll(arguments.at(3));
  const int64_t dp = std::stoll(arguments.at(4));
  std::optional<LaunchEnv> env = read_launch_env();
  if (!env && tp * dp > 1) return run_local_ranks(static_cast<int>(tp * dp), arguments);
  if (!env) env = LaunchEnv{};
  std::signal(SIGTERM, SIG_IGN);  // as in training, where it does not end a rank at once
  set_log(LogLevel::warn, env->rank == 0);
  at::set_num_threads(1);
  const std::chrono::seconds timeout(60);
  const Mesh mesh(rendezvous(*env, timeout), env->rank, env->world_size, {.tp = tp, .dp = dp, .timeout = timeout});
  if (what == "check") return check(arguments.at(2), mesh);
  write(arguments.at(2), std::stoll(arguments.at(5)), std::stoll(arguments.at(6)), std::stoll(arguments.at(7)), mesh);
  return 0;
}

}  // namespace
}  // namespace optp

int main(int argc, char** argv) { return optp::testing::run_program("checkpoint_program", argc, argv, optp::run); }

// Training of a small model in which one rank raises a signal at a chosen moment, for launched/lost_rank_test.py:
//
//   training_program OUTPUT gloo|shm SECONDS VICTIM SIGNAL MOMENT
//
// The rank VICTIM raises the signal number SIGNAL at `connect` (while the mesh waits for it), `forward`,
// `backward`, `collective` (while it waits in one), `checkpoint` (while it writes one) or `exit` (when the work is
// done, before the others know). At `start` it is before the rendezvous. SECONDS: the ranks' time limit.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <chrono>
#include <csignal>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_init.h"
#include "parallel/launch_env.h"
#include "parallel/rendezvous.h"
#include "src/log.h"
#include "src/train/trainer.h"
#include "tests/launch/program_main.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

constexpr int64_t kSteps = 6;
constexpr int64_t kFatalStep = 4;

class RandomIds : public TrainingSet {
 public:
  int64_t size() const override { return 64; }
  Examples read(int64_t /*epoch*/, int64_t first, int64_t count) const override {
    const at::Tensor ids = testing::random_ids(testing::small_opt(), count, 9, static_cast<uint64_t>(first));
    return {ids.slice(1, 0, 8), ids.slice(1, 1, 9)};
  }
  std::string fingerprint() const override { return "random"; }
};

struct Plan {
  int64_t victim = 0;
  int signal = 0;
  std::string moment;
  int64_t step = 0;  // that is being taken

  bool fatal(std::string_view now, int64_t rank) const {
    return rank == victim && moment == now && (step == kFatalStep || now == "start" || now == "connect");
  }
};

// Says when, for who measures how long the others take.
void end(const Plan& plan) {
  std::cout << "now\n" << std::flush;
  std::raise(plan.signal);
}

// As a mesh does it at first: the rank has shown itself to the others, which wait for it to connect.
void end_connecting(const Plan& plan, const LaunchEnv& env, const c10::intrusive_ptr<c10d::Store>& store) {
  RankWatch::Members members;
  for (int64_t rank = 0; rank < env.world_size; ++rank) members[0].push_back(rank);
  const RankWatch watch(c10::make_intrusive<c10d::PrefixStore>("watch", store), env.rank, members,
                        /*serves_store=*/false);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  end(plan);
}

// Sends the victim its signal before, or while, it takes part in a collective of that moment.
CollectiveHook hook_for(const Plan& plan, const Mesh& mesh) {
  return [&plan, rank = mesh.world().rank()](const Collective& collective) {
    const std::string_view site = collective.site;
    const bool in_model = site.find("layers.1") != std::string_view::npos;
    if (in_model && site.ends_with("forward") && plan.fatal("forward", rank)) end(plan);
    if (in_model && site.ends_with("backward") && plan.fatal("backward", rank)) end(plan);
    if (site == "checkpoint write" && plan.fatal("checkpoint", rank)) end(plan);
    if (plan.moment == "collective" && plan.step == kFatalStep && in_model && site.ends_with("forward")) {
      if (rank == plan.victim) {
        std::thread([&plan] {
          std::this_thread::sleep_for(std::chrono::milliseconds(300));
          end(plan);
        }).detach();
      } else {
        std::this_thread::sleep_for(std::chrono::seconds(1));  // so that the victim waits
      }
    }
    return true;
  };
}

int run(const std::vector<std::string>& arguments) {
  const LaunchEnv env = read_launch_env().value();
  Plan plan{.victim = std::stoll(arguments.at(4)), .signal = std::stoi(arguments.at(5)), .moment = arguments.at(6)};
  set_log(LogLevel::warn, env.rank == 0);
  at::set_num_threads(1);
  if (plan.fatal("start", env.rank)) end(plan);
  const std::chrono::seconds timeout(std::stoll(arguments.at(3)));
  const auto store = rendezvous(env, timeout);
  if (plan.fatal("connect", env.rank)) end_connecting(plan, env, store);
  const Mesh::Comm comm = arguments.at(2) == "gloo" ? Mesh::Comm::gloo : Mesh::Comm::shared_memory;
  const Mesh mesh(store, env.rank, env.world_size,
                  {.tp = env.world_size,
                   .timeout = timeout,
                   .comm = comm,
                   .check_collectives = true,
                   .serves_store = env.rank == 0 && !env.use_agent_store});
  for (ProcessGroup group : {mesh.world(), mesh.tensor()}) group.set_hook(hook_for(plan, mesh));

  OptForCausalLM model(testing::small_opt(), mesh);
  initialize(named_shards(*model), model->config(), /*seed=*/0);
  TrainerOptions options;
  options.batch_size(4).max_steps(kSteps).save_every(kFatalStep).output(arguments.at(1));
  Trainer trainer(model, options);
  trainer.stop_when([&] {
    ++plan.step;  // asked once a step, at its beginning
    // As slow as a real run, in which all have shown where they are.
    if (plan.step == kFatalStep) std::this_thread::sleep_for(std::chrono::seconds(1));
    return 0;
  });
  trainer.fit(RandomIds());
  plan.step = kFatalStep;
  if (plan.fatal("exit", env.rank)) end(plan);
  mesh.world().barrier("end");
  return 0;
}

}  // namespace
}  // namespace optp

int main(int argc, char** argv) { return optp::testing::run_program("optp", argc, argv, optp::run); }

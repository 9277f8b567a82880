// read_launch_env: every launcher's variables, and each of them missing, malformed or contradictory.
#include "parallel/launch_env.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <map>

namespace optp {
namespace {

using Variables = std::map<std::string, std::string>;

const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "node1"},
                             {"MASTER_PORT", "29500"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"}};

const Variables kOpenMpi = {
    {"OMPI_COMM_WORLD_RANK", "3"},       {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}, {"MASTER_ADDR", "node1"},      {"MASTER_PORT", "29500"}};

// Task 8 of 9: the second of two on the fourth of four nodes.
const Variables kSlurm = {{"SLURM_STEP_ID", "0"},
                          {"SLURM_PROCID", "8"},
                          {"SLURM_STEP_NUM_TASKS", "9"},
                          {"SLURM_NTASKS", "16"},
                          {"SLURM_LOCALID", "1"},
                          {"SLURM_NODEID", "3"},
                          {"SLURM_STEP_TASKS_PER_NODE", "2(x2),3,2"},
                          {"SLURM_TASKS_PER_NODE", "4(x4)"},
                          {"MASTER_ADDR", "node1"},
                          {"MASTER_PORT", "29500"}};

std::optional<LaunchEnv> read(const Variables& variables) {
  return read_launch_env([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
  });
}

Variables with(Variables variables, const Variables& changes) {
  for (const auto& [name, value] : changes) variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::vector<std::string>& names) {
  for (const std::string& name : names) variables.erase(name);
  return variables;
}

// The sentence with which reading fails; empty if it does not.
std::string complaint(const Variables& variables) {
  try {
    read(variables);
    return "";
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
}

void expect_begins(const Variables& variables, const std::string& beginning) {
  const std::string text = complaint(variables);
  EXPECT_TRUE(text.starts_with(beginning)) << "got: \"" << text << "\", expected: \"" << beginning << "\"";
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
}

TEST(LaunchEnvTest, NoLauncher) {
  EXPECT_FALSE(read({}));
  EXPECT_FALSE(read({{"MASTER_ADDR", "node1"}, {"MASTER_PORT", "1"}, {"LOCAL_RANK", "0"}}));
}

TEST(LaunchEnvTest, Torchrun) {
  const auto env = read(kTorchrun);
  ASSERT_TRUE(env);
  EXPECT_EQ(env->rank, 3);
  EXPECT_EQ(env->world_size, 4);
  EXPECT_EQ(env->local_rank, 1);
  EXPECT_EQ(env->local_world_size, 2);
  EXPECT_EQ(env->master_addr, "node1");
  EXPECT_EQ(env->master_port, 29500);
  EXPECT_TRUE(env->use_agent_store);
  EXPECT_EQ(env->restart_count, 2);
}

TEST(LaunchEnvTest, AgentStoreAndRestartsAreOptional) {
  const auto env = read(without(kTorchrun, {"TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"}));
  ASSERT_TRUE(env);
  EXPECT_FALSE(env->use_agent_store);
  EXPECT_EQ(env->restart_count, 0);
  EXPECT_FALSE(read(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}}))->use_agent_store);
}

TEST(LaunchEnvTest, TheTokenIsOursOrWhatTheLauncherCallsTheRun) {
  EXPECT_EQ(read(kTorchrun)->run_token, "");
  const Variables named = with(kTorchrun, {{"TORCHELASTIC_RUN_ID", "night"}});
  EXPECT_EQ(read(named)->run_token, "night");
  EXPECT_EQ(read(with(named, {{"OPTP_RUN_TOKEN", "0123"}}))->run_token, "0123");
  EXPECT_EQ(read(with(kOpenMpi, {{"PMIX_NAMESPACE", "job7"}}))->run_token, "job7");
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_JOB_ID", "41"}, {"SLURM_STEP_ID", "2"}}))->run_token, "41.2");
}

TEST(LaunchEnvTest, WorldOfOneNeedsNothingElse) {
  const auto env = read({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  ASSERT_TRUE(env);
  EXPECT_EQ(env->local_rank, 0);
  EXPECT_EQ(env->local_world_size, 1);
  EXPECT_EQ(env->master_addr, "");
}

TEST(LaunchEnvTest, LocalRankDefaultsOnLoopbackOnly) {
  const Variables variables = without(kTorchrun, {"LOCAL_RANK", "LOCAL_WORLD_SIZE"});
  for (const std::string address : {"127.0.0.1", "127.3.2.1", "localhost", "::1"}) {
    const auto env = read(with(variables, {{"MASTER_ADDR", address}}));
    ASSERT_TRUE(env);
    EXPECT_EQ(env->local_rank, 3) << address;
    EXPECT_EQ(env->local_world_size, 4) << address;
  }
  expect_begins(variables, "LOCAL_RANK is not set, but MASTER_ADDR is node1, so ranks can be on several hosts: ");
  expect_begins(with(variables, {{"MASTER_ADDR", "127.example.org"}}), "LOCAL_RANK is not set, but MASTER_ADDR is ");
}

TEST(LaunchEnvTest, OpenMpi) {
  const auto env = read(kOpenMpi);
  ASSERT_TRUE(env);
  EXPECT_EQ(env->rank, 3);
  EXPECT_EQ(env->world_size, 4);
  EXPECT_EQ(env->local_rank, 1);
  EXPECT_EQ(env->local_world_size, 2);
  EXPECT_FALSE(env->use_agent_store);
}

TEST(LaunchEnvTest, Slurm) {
  const auto env = read(kSlurm);
  ASSERT_TRUE(env);
  EXPECT_EQ(env->rank, 8);
  EXPECT_EQ(env->world_size, 9);
  EXPECT_EQ(env->local_rank, 1);
  EXPECT_EQ(env->local_world_size, 2);
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_NODEID", "2"}}))->local_world_size, 3);
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_NODEID", "0"}}))->local_world_size, 2);

  const auto old = read(without(kSlurm, {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"}));
  ASSERT_TRUE(old);
  EXPECT_EQ(old->world_size, 16);
  EXPECT_EQ(old->local_world_size, 4);
}

TEST(LaunchEnvTest, SlurmOutsideAStepIsNoLauncher) {
  EXPECT_FALSE(read(without(kSlurm, {"SLURM_STEP_ID"})));                                    // a batch script
  EXPECT_FALSE(read(with(kSlurm, {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}})));  // an interactive shell
}

TEST(LaunchEnvTest, TheInnermostLauncherWins) {
  Variables all = with(with(kSlurm, kOpenMpi), {{"OMPI_COMM_WORLD_RANK", "2"}});
  EXPECT_EQ(read(all)->rank, 2);  // mpirun inside a Slurm job
  EXPECT_EQ(read(with(all, kTorchrun))->rank, 3);
}

TEST(LaunchEnvTest, TorchrunVariablesMissing) {
  expect_begins(without(kTorchrun, {"WORLD_SIZE"}), "WORLD_SIZE is not set, but RANK is 3: ");
  expect_begins(without(kTorchrun, {"RANK"}), "RANK is not set, but WORLD_SIZE is 4: ");
  expect_begins(without(kTorchrun, {"MASTER_ADDR"}), "MASTER_ADDR is not set, but WORLD_SIZE is 4: ");
  expect_begins(without(kTorchrun, {"MASTER_PORT"}), "MASTER_PORT is not set, but WORLD_SIZE is 4: ");
  expect_begins(without(kTorchrun, {"LOCAL_RANK"}), "LOCAL_RANK is not set, but LOCAL_WORLD_SIZE is 2: ");
  expect_begins(without(kTorchrun, {"LOCAL_WORLD_SIZE"}), "LOCAL_WORLD_SIZE is not set, but LOCAL_RANK is 1: ");
}

TEST(LaunchEnvTest, TorchrunVariablesMalformed) {
  const std::vector<std::string> numbers = {
      "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"};
  for (const std::string& name : numbers) {
    for (const std::string value : {"1x", "x1", "", " 1", "1 ", "+1", "-1", "1.0", "99999999999999999999", "0x1"}) {
      expect_begins(with(kTorchrun, {{name, value}}), name + " is \"" + value + "\", not a whole number from ");
    }
  }
  for (const std::string name : {"WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"}) {
    expect_begins(with(kTorchrun, {{name, "0"}}), name + " is \"0\", not a whole number from 1 to ");
  }
  expect_begins(with(kTorchrun, {{"MASTER_PORT", "65536"}}), "MASTER_PORT is \"65536\", not a whole number from 1 to ");
  expect_begins(with(kTorchrun, {{"MASTER_ADDR", ""}}), "MASTER_ADDR is empty: ");
  expect_begins(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "yes"}}),
                "TORCHELASTIC_USE_AGENT_STORE is \"yes\", neither True nor False: ");
  EXPECT_EQ(complaint(with(kTorchrun, {{"MASTER_PORT", "65535"}})), "");
}

TEST(LaunchEnvTest, TorchrunVariablesContradict) {
  expect_begins(with(kTorchrun, {{"RANK", "4"}}), "RANK is 4 but must be less than WORLD_SIZE, which is 4: ");
  expect_begins(with(kTorchrun, {{"LOCAL_RANK", "2"}}), "LOCAL_RANK is 2 but must be less than LOCAL_WORLD_SIZE, ");
  expect_begins(with(kTorchrun, {{"LOCAL_WORLD_SIZE", "5"}}),
                "LOCAL_WORLD_SIZE is 5, more than WORLD_SIZE, which is 4");
}

TEST(LaunchEnvTest, OpenMpiVariablesWrong) {
  expect_begins(without(kOpenMpi, {"OMPI_COMM_WORLD_SIZE"}),
                "OMPI_COMM_WORLD_SIZE is not set, but OMPI_COMM_WORLD_RANK");
  expect_begins(without(kOpenMpi, {"MASTER_ADDR"}), "MASTER_ADDR is not set, but OMPI_COMM_WORLD_SIZE is 4: ");
  expect_begins(with(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_RANK", "2"}}), "OMPI_COMM_WORLD_LOCAL_RANK is 2 but must be ");
}

TEST(LaunchEnvTest, SlurmVariablesWrong) {
  for (const std::string name : {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"}) {
    expect_begins(without(kSlurm, {name}), name + " is not set, but SLURM_STEP_ID is 0: ");
    expect_begins(with(kSlurm, {{name, "1x"}}), name + " is \"1x\", not a whole number from 0 to ");
  }
  expect_begins(without(kSlurm, {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}), "SLURM_NTASKS is not set, but ");
  expect_begins(without(kSlurm, {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"}),
                "SLURM_STEP_TASKS_PER_NODE is not set, but ");
  expect_begins(without(kSlurm, {"MASTER_PORT"}), "MASTER_PORT is not set, but SLURM_STEP_NUM_TASKS is 9: ");
  expect_begins(with(kSlurm, {{"SLURM_PROCID", "9"}}), "SLURM_PROCID is 9 but must be less than SLURM_STEP_NUM_TASKS");
  expect_begins(with(kSlurm, {{"SLURM_LOCALID", "2"}}),
                "SLURM_LOCALID is 2 but must be less than SLURM_STEP_TASKS_PER_");
  expect_begins(with(kSlurm, {{"SLURM_NODEID", "4"}}), "SLURM_NODEID is 4, but SLURM_STEP_TASKS_PER_NODE (2(x2),3,2)");
  for (const std::string list : {"", "2(x", "2(x)", "(x2)", "2,,3", "2(x2", "a", "2(x0)", "2(x99999999999)", "0(x4)"}) {
    expect_begins(with(kSlurm, {{"SLURM_STEP_TASKS_PER_NODE", list}}),
                  "SLURM_STEP_TASKS_PER_NODE is \"" + list + "\", not a list such as 4(x2),3: ");
  }
}

}  // namespace
}  // namespace optp

// The command line, wrong usage first.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

using Arguments = std::vector<std::string>;

// One line on standard error, nothing on standard output, exit status 2.
void expect_refused(const Arguments& arguments, const std::string& part, const Environment& environment = {}) {
  std::string command = "optp";
  for (const std::string& argument : arguments) command += " " + argument;
  SCOPED_TRACE(command);
  const ProgramResult result = run_optp(arguments, environment, 60);
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.err.starts_with("optp: ")) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
}

TEST(CommandLine, RefusesWrongUsage) {
  expect_refused({}, "A subcommand is required");
  expect_refused({"vrify"}, "vrify");
  expect_refused({"verify", "--tpp", "2"}, "--tpp");
  expect_refused({"verify", "--tp", "0"}, "--tp");
  expect_refused({"verify", "--tp", "two"}, "--tp");
  expect_refused({"train", "--epochs", "0"}, "--epochs: 0 must be above 0");
  expect_refused({"train", "--lr", "nan"}, "--lr: nan must be 0 or more");
  expect_refused({"train", "--weight-decay", "inf"}, "--weight-decay: inf must be 0 or more");
  expect_refused({"verify", "--tp", "13"}, "12 heads");
  expect_refused({"verify", "--checks", "forwards"}, "\"forwards\" is no check");
  expect_refused({"verify", "--checks", ""}, "--checks");
  expect_refused({"verify", "--inject", "gremlins"}, "gremlins");
  expect_refused({"verify", "--inject", "scaled-gradient", "--inject-layer", "12"}, "layers 0 to 11");
  expect_refused({"verify", "--dtype", "float16"}, "float16");
  expect_refused({"verify", "--seq-len", "1", "--num-layers", "1", "--hidden-size", "16", "--tp", "1"}, "--seq-len 1");
  expect_refused({"verify", "--model", "opt-126m"}, "opt-125m");
  expect_refused({"verify", "--model", "/nowhere"}, "/nowhere");
  expect_refused({"verify", "--hidden-size", "-3"}, "--hidden-size");
  expect_refused({"verify", "--num-heads", "7"}, "not a multiple of num_attention_heads 7");
  expect_refused({"verify", "--model", std::string(OPTP_GOLDEN "/base"), "--num-layers", "1"}, "whose sizes are fixed");
  expect_refused({"verify", "--text", "/nowhere"}, "/nowhere does not exist");
  expect_refused({"forward", "--model", "opt-tiny"}, "--input");
  expect_refused({"forward", "--model", "opt-tiny", "--input", "/nowhere", "--output", "x"}, "/nowhere");
}

// As a prompt, "[INST] Hi, you [/INST]" is one text.
TEST(CommandLine, TakesATextInBracketsAsItIs) {
  expect_refused({"generate", "--model", "opt-tiny", "--prompt-ids", "[2,100]"},
                 "--prompt-ids \"[2,100]\": \"[2\" is no id");
  expect_refused({"train", "--model", "opt-tiny", "--train-data=[]", "--output", "/nowhere"},
                 "[] is neither .txt nor .npy");
}

TEST(CommandLine, RefusesContradictoryEnvironment) {
  const Arguments verify{"verify", "--model", "opt-tiny", "--tp", "2"};
  expect_refused(verify, "WORLD_SIZE", {{"RANK", "0"}});
  expect_refused(verify, "RANK", {{"RANK", "zero"}, {"WORLD_SIZE", "2"}});
  expect_refused(verify, "RANK",
                 {{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "1"}});
  expect_refused(verify, "MASTER_ADDR", {{"RANK", "0"}, {"WORLD_SIZE", "2"}});
  expect_refused(verify, "MASTER_PORT",
                 {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "port"}});
  expect_refused(verify, "--tp 2 x --dp 1 needs 2 ranks",
                 {{"RANK", "0"}, {"WORLD_SIZE", "3"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29500"}});
}

TEST(CommandLine, HelpTeaches) {
  const ProgramResult all = run_optp({"--help"});
  EXPECT_EQ(all.status, 0);
  EXPECT_NE(all.out.find("verify"), std::string::npos);
  EXPECT_NE(all.out.find("forward"), std::string::npos);
  const ProgramResult verify = run_optp({"verify", "--help"});
  EXPECT_EQ(verify.status, 0);
  for (const char* option : {"--tp", "--checks", "--inject", "--text", "--json", "--timeout", "Examples"}) {
    EXPECT_NE(verify.out.find(option), std::string::npos) << option;
  }
  EXPECT_TRUE(run_optp({"--version"}).out.starts_with("optp " OPTP_VERSION));
  EXPECT_EQ(run_optp({"verify", "--list-checks"}).out,
            "forward\nbackward\ngradients\noptimizers\nmemory\nstability\nend-to-end\n");
}

TEST(CommandLine, ConfigFileGivesOptionsAndTheCommandLineWins) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", R"({"options": {"model": "opt-tiny", "num-layers": 1, "tp": 1, "vocab-size": 300,
    "checks": "forward", "quiet": true, "seq-len": 9, "text": null}})");
  const auto report = (folder / "report.txt").string();
  const ProgramResult result =
      run_optp({"verify", "--config", (folder / "config.json").string(), "--seq-len=7", "--report", report});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_NE(result.out.find("1 layers"), std::string::npos);
  EXPECT_NE(result.out.find("2 x 7 tokens"), std::string::npos);
  EXPECT_EQ(read_file(report), result.out);

  write_text(folder / "unknown.json", R"({"tpp": 2})");
  expect_refused({"verify", "--config", (folder / "unknown.json").string()}, "--tpp");
  write_text(folder / "broken.json", "{");
  expect_refused({"verify", "--config", (folder / "broken.json").string()}, "broken.json is not valid JSON at byte 2.");
  expect_refused({"verify", "--config", (folder / "absent.json").string()}, "absent.json does not exist");
}

TEST(CommandLine, ConfigFilesThatAreNoOptionsAreRefused) {
  const TemporaryFolder folder;
  const auto path = (folder / "config.json").string();
  const auto expect_config_refused = [&](const std::string& text, const std::string& part) {
    write_text(path, text);
    expect_refused({"plan", "--config", path, "--seq-len=7"}, part);
  };
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  expect_config_refused(R"({"model": )" + deep + "}", "config.json: \"model\" is a list of lists; use a string");
  expect_config_refused(R"({"options": {"model": )" + deep + "}}", "\"model\" is a list of lists; use a string");
  expect_config_refused(R"({"model": ["opt-tiny", null]})", "\"model\" is a list with null");
  expect_config_refused(R"({"model": {"name": "opt-tiny"}})", "\"model\" is or holds an object");
  expect_config_refused(R"({"tp": 1e999})", "config.json is not valid JSON: a number in it is too large.");
  expect_config_refused(R"({"seq-len=8": true})", "\"seq-len=8\" is the name of no option");
  expect_config_refused("[]", "holds no object of options");
  // An option never takes what follows it for its value.
  expect_config_refused(R"({"model": true})", "\"true\" is no");
  expect_config_refused(R"({"model": ""})", "\"\" is no");
}

}  // namespace
}  // namespace optp::testing

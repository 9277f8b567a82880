// `optp verify` and `optp forward` with real processes.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/safetensors_writer.h"
#include "tests/support/program.h"

namespace optp::testing {
namespace {

using nlohmann::json;
using Arguments = std::vector<std::string>;

// A model of 2 layers that every degree up to 4 can share, none evenly.
const Arguments kSmall = {"--model",      "opt-tiny", "--hidden-size",   "36", "--num-heads", "6", "--ffn-dim", "77",
                          "--vocab-size", "307",      "--max-positions", "32", "--seq-len",   "16"};

Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

struct Verification {
  ProgramResult program;
  json result;
  std::string report;
};

Verification verify(const Arguments& arguments) {
  const TemporaryFolder folder;
  Verification run;
  run.program = run_optp(
      Arguments{"verify", "--report", (folder / "report.txt").string(), "--json", (folder / "result.json").string()} +
      arguments);
  run.result = json::parse(read_file(folder / "result.json"), nullptr, /*allow_exceptions=*/false);
  run.report = read_file(folder / "report.txt");
  return run;
}

class LaunchVerify : public ::testing::TestWithParam<int> {};

TEST_P(LaunchVerify, AllChecksPass) {
  const Verification run = verify(kSmall + Arguments{"--tp", std::to_string(GetParam())});
  EXPECT_EQ(run.program.status, 0) << run.program.err << run.program.out;
  ASSERT_TRUE(run.result.is_object());
  EXPECT_EQ(run.result["verdict"], "pass");
  EXPECT_EQ(run.result["tp"], GetParam());
  EXPECT_EQ(run.result["checks"].size(), 7U);
  EXPECT_TRUE(run.report.ends_with("Verdict: PASS\n"));
  EXPECT_EQ(run.report, run.program.out);
}

// The shapes of 125m, 350m and Galactica, with the weights that transformers made, in float64: what is left is
// rounding.
TEST_P(LaunchVerify, ForwardBackwardGradientsOfEveryShapeAgreeInFloat64) {
  for (const char* name : {"base", "opt-350m", "galactica"}) {
    SCOPED_TRACE(name);
    const Verification run =
        verify({"--model", std::string(OPTP_GOLDEN "/") + name, "--tp", std::to_string(GetParam()), "--dtype",
                "float64", "--checks", "forward,backward,gradients,end-to-end", "--seq-len", "12"});
    EXPECT_EQ(run.program.status, 0) << run.program.err << run.program.out;
    for (const json& check : run.result["checks"]) {
      if (check["name"] == "gradients") continue;  // its central differences carry their own error
      EXPECT_LT(check["max_abs_difference"].get<double>(), 1e-11) << check;
    }
  }
}

// What moves the numbers and what multiplies them changes no verdict, and the report says what it was.
TEST(LaunchVerifyOptions, AllChecksPassWithEveryBackendAndProductLibrary) {
  const std::vector<std::pair<Arguments, std::string>> cases = {
      {{"--comm", "gloo", "--products", "onednn"}, "over Gloo"},
      {{"--comm", "shm", "--products", "mkl"}, "over shared memory"},
  };
  for (const auto& [options, words] : cases) {
    SCOPED_TRACE(words + ", " + options.back());
    const Verification run = verify(kSmall + options + Arguments{"--tp", "2"});
    EXPECT_EQ(run.program.status, 0) << run.program.err << run.program.out;
    EXPECT_NE(run.report.find(words), std::string::npos);
    EXPECT_NE(run.program.err.find(options.back() == "mkl" ? "products by MKL" : "products by oneDNN"),
              std::string::npos)
        << run.program.err;
  }
}

TEST(LaunchVerifyOptions, ForwardBackwardAtDegreesUpToTheNumberOfHeads) {
  for (const char* tp : {"5", "12"}) {
    const Verification run =
        verify({"--num-layers", "1", "--hidden-size", "60", "--num-heads", "12", "--vocab-size", "601",
                "--max-positions", "16", "--seq-len", "8", "--tp", tp, "--checks", "forward,backward"});
    EXPECT_EQ(run.program.status, 0) << run.program.err << run.program.out;
  }
}

INSTANTIATE_TEST_SUITE_P(Degrees, LaunchVerify, ::testing::Values(1, 2, 3, 4),
                         [](const auto& test) { return "tp" + std::to_string(test.param); });

TEST(LaunchVerifyOptions, EachCheckRunsAlone) {
  for (const char* name : {"forward", "backward", "gradients", "optimizers", "memory", "stability", "legacy"}) {
    const Verification run = verify(kSmall + Arguments{"--tp", "2", "--checks", name});
    EXPECT_EQ(run.program.status, 0) << name << run.program.err << run.program.out;
    ASSERT_EQ(run.result["checks"].size(), 1U);
    EXPECT_EQ(run.result["checks"][0]["name"], std::string(name) == "legacy" ? "end-to-end" : name);
  }
}

TEST(LaunchVerifyOptions, TightLimitsFail) {
  const Verification run =
      verify(kSmall + Arguments{"--tp", "2", "--checks", "forward", "--forward-tolerance", "1e-12"});
  EXPECT_EQ(run.program.status, 1);
  EXPECT_EQ(run.result["verdict"], "fail");
  EXPECT_TRUE(run.report.ends_with("Verdict: FAIL\n"));
  EXPECT_EQ(
      verify(kSmall + Arguments{"--tp", "2", "--checks", "memory", "--max-memory-overhead", "0.0001"}).program.status,
      1);
}

TEST(LaunchVerifyOptions, TextPagesAndJUnit) {
  const TemporaryFolder folder;
  write_text(folder / "text.txt", "To be, or not to be, that is the question.\n");
  const Verification run =
      verify(kSmall + Arguments{"--tp", "2", "--checks", "forward,backward", "--text", (folder / "text.txt").string(),
                                "--html", (folder / "page.html").string(), "--junit", (folder / "junit.xml").string()});
  EXPECT_EQ(run.program.status, 0) << run.program.err;
  EXPECT_NE(run.report.find("text of 43"), std::string::npos);
  EXPECT_NE(read_file(folder / "page.html").find("</html>"), std::string::npos);
  EXPECT_NE(read_file(folder / "junit.xml").find("tests=\"2\""), std::string::npos);
}

// The very configuration of a training run.
TEST(LaunchVerifyOptions, AsTrained) {
  const Arguments batch{"--batch-size", "5", "--tp", "2", "--dp", "2"};
  for (const Arguments& switches :
       {Arguments{}, Arguments{"--micro-batch-size", "1", "--sequence-parallel", "--activation-checkpointing"}}) {
    const Verification run = verify(kSmall + batch + switches);
    EXPECT_EQ(run.program.status, 0) << run.program.err << run.program.out;
    EXPECT_EQ(run.result["dp"], 2);
  }
  EXPECT_EQ(verify(kSmall + batch + Arguments{"--batch-size", "1", "--checks", "backward"}).program.status, 2);
}

// bfloat16 is held to what the reference loses in it, and that is enough to tell a mistake from rounding.
TEST(LaunchVerifyOptions, BFloat16AsTrained) {
  const Arguments rounded{"--dtype", "bfloat16", "--tp", "2", "--checks"};
  const Arguments as_trained{"--dp",         "2", "--micro-batch-size",  "1",
                             "--batch-size", "4", "--sequence-parallel", "--activation-checkpointing"};
  const Verification honest = verify(kSmall + rounded + Arguments{"forward,backward,memory"} + as_trained);
  EXPECT_EQ(honest.program.status, 0) << honest.program.err << honest.program.out;
  EXPECT_EQ(honest.result["dtype"], "bfloat16");
  EXPECT_NE(honest.report.find("Limits: three times as far"), std::string::npos);
  const Verification trained = verify(kSmall + rounded + Arguments{"gradients,optimizers,end-to-end"});
  EXPECT_EQ(trained.program.status, 0) << trained.program.err << trained.program.out;
  for (const auto& [fault, check] : std::vector<std::pair<std::string, std::string>>{
           {"bias-on-every-rank", "forward"}, {"scaled-gradient", "backward"}, {"drifting-replica", "gradients"}}) {
    EXPECT_EQ(verify(kSmall + rounded + Arguments{check, "--inject", fault}).result["caught_by"], json({check}));
  }
  EXPECT_EQ(verify(kSmall + rounded + Arguments{"forward", "--forward-tolerance", "0.1"}).program.status, 2);
}

// What a check is there for is found by that check alone, at a degree that divides nothing evenly or at two ranks.
TEST(LaunchVerifyOptions, EveryFaultIsCaughtAndNamedByTheCheckThatIsMeantTo) {
  const std::vector<std::pair<std::string, std::string>> meant = {
      {"dropped-forward-all-reduce", "forward"},
      {"dropped-backward-all-reduce", "backward"},
      {"bias-on-every-rank", "forward"},
      {"exchanged-shards", "end-to-end"},
      {"scaled-gradient", "gradients"},
      {"drifting-replica", "gradients"},
      {"shifted-vocabulary", "forward"},
      {"whole-parameter-kept", "memory"},
      {"exchanged-shards", "optimizers"},
      {"dropped-backward-all-reduce", "stability"},
      {"gradient-not-reduced", "backward"},
      {"layer-norm-not-summed", "backward"},
      {"lost-micro-batch", "backward"},
      {"replica-counted-twice", "backward"},
      {"memory-not-freed", "memory"},
      {"dropped-forward-all-reduce", "memory"},
  };
  std::set<std::string> tried;
  for (const auto& [fault, check] : meant) {
    SCOPED_TRACE(fault + " by " + check);
    const std::string tp = tried.insert(fault).second && check != "memory" ? "3" : "2";
    const Verification run = verify(kSmall + Arguments{"--tp", tp, "--inject", fault, "--checks", check});
    EXPECT_EQ(run.program.status, 1) << run.program.err;
    EXPECT_EQ(run.result["caught_by"], json({check}));
    EXPECT_NE(run.report.find(fault), std::string::npos);
  }
  std::istringstream lines(run_optp({"verify", "--list-faults"}).out);
  std::set<std::string> listed;
  for (std::string fault; std::getline(lines, fault);) listed.insert(fault);
  EXPECT_EQ(tried, listed);
}

TEST(LaunchVerifyOptions, ForwardDebugNamesTheLayerOfTheFault) {
  for (const char* layer : {"0", "2", "3"}) {
    const Verification run =
        verify(kSmall + Arguments{"--num-layers", "4", "--tp", "2", "--checks", "forward", "--inject",
                                  "bias-on-every-rank", "--inject-layer", layer, "--log-level", "debug"});
    EXPECT_EQ(run.program.status, 1);
    EXPECT_NE(run.program.err.find(std::string("first divergence: layer ") + layer), std::string::npos)
        << run.program.err;
  }
}

// transformers' recorded logits, through `optp forward` at every degree.
TEST(LaunchForward, EqualsTransformers) {
  for (const char* name : {"base", "opt-350m", "galactica", "sharded"}) {
    const std::string model = std::string(OPTP_GOLDEN "/") + name;
    const SafetensorsFile expected(model + "/expected.safetensors");
    const at::Tensor real = expected.read("attention_mask").to(at::kBool);
    for (const int tp : {1, 2, 3, 4}) {
      SCOPED_TRACE(std::string(name) + " tp " + std::to_string(tp));
      const TemporaryFolder folder;
      write_safetensors(folder / "in.safetensors", {{"input_ids", expected.read("input_ids")},
                                                    {"attention_mask", expected.read("attention_mask")},
                                                    {"labels", expected.read("labels")}});
      const ProgramResult result =
          run_optp({"forward", "--model", model, "--input", (folder / "in.safetensors").string(), "--output",
                    (folder / "out.safetensors").string(), "--tp", std::to_string(tp)});
      ASSERT_EQ(result.status, 0) << result.err;
      const SafetensorsFile output((folder / "out.safetensors").string());
      const at::Tensor logits = output.read("logits");
      EXPECT_EQ(logits.scalar_type(), at::kFloat);
      EXPECT_TRUE(logits.isfinite().all().item<bool>());
      EXPECT_LT((logits - expected.read("logits")).index({real}).abs().max().item<double>(), 1e-5);
      EXPECT_LT((output.read("loss") - expected.read("loss")).abs().item<double>(), 1e-5);
    }
  }
}

TEST(LaunchForward, RefusesBadInput) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::vector<std::pair<std::string, at::Tensor>>& tensors, const std::string& part) {
    write_safetensors(folder / "in.safetensors", tensors);
    const ProgramResult result = run_optp({"forward", "--model", std::string(OPTP_GOLDEN "/base"), "--input",
                                           (folder / "in.safetensors").string(), "--output",
                                           (folder / "out.safetensors").string(), "--tp", "2"});
    EXPECT_EQ(result.status, 2);
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "out.safetensors"));
  };
  const at::Tensor ids = at::full({1, 3}, 5, at::kLong);
  refused({{"ids", ids}}, "\"ids\" is unknown");
  refused({{"labels", ids}}, "no tensor input_ids");
  refused({{"input_ids", ids.to(at::kInt)}}, "use int64 [B, T]");
  refused({{"input_ids", ids + 45}}, "id 50, outside the vocabulary of 45");
  refused({{"input_ids", at::full({1, 17}, 5, at::kLong)}}, "the model's 16 positions");
  refused({{"input_ids", ids}, {"attention_mask", ids}}, "other values than 0 and 1");
  refused({{"input_ids", ids}, {"labels", ids - 6}}, "labels hold id -1");
}

}  // namespace
}  // namespace optp::testing

// The C++ face of training, as the README shows it, and what it does where a loss is not finite.
#include "src/train/trainer.h"

#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "modules/opt_init.h"
#include "src/data/open_tokens.h"
#include "src/train/token_training_set.h"
#include "tests/support/network.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "tests/support/small_opt.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::integers;
using ::testing::MatchesRegex;
using testing::run_ranks;
using testing::run_ranks_over;
using testing::ShardedNetwork;

// The README's block of code from the line that begins with `first` on: each line without spaces, comments and
// "optp::".
std::vector<std::string> readme_lines(const std::string& first) {
  const std::string readme = testing::read_file(OPTP_GOLDEN "/../../README.md");
  const size_t begin = readme.find("\n" + first) + 1;
  std::istringstream block(readme.substr(begin, readme.find("\n```", begin) - begin));
  std::vector<std::string> lines;
  for (std::string line; std::getline(block, line);) {
    line = line.substr(0, line.find("//"));
    line.erase(0, line.find_first_not_of(' '));
    line.erase(line.find_last_not_of(' ') + 1);
    c10::ReplaceAll(line, "optp::", "");
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

TEST(Trainer, TrainsAndCallsBackAsTheReadmeShows) {
  const testing::TemporaryFolder folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  setenv("XDG_CACHE_HOME", folder.path().c_str(), 1);
  std::string text;
  for (int i = 0; i < 400; ++i) text += "To be, or not to be: " + std::to_string(i % 7);
  testing::write_text("train.txt", text);
  testing::write_text("val.txt", text.substr(0, 1000));
  run_ranks_over(Mesh::Comm::automatic, 2, 1, [](const Mesh& mesh) {
    OptForCausalLM model(testing::small_opt().vocab_size(260).max_position_embeddings(128), mesh);
    initialize(named_shards(*model), model->config(), /*seed=*/0);
    std::ostringstream out;

    // The README's lines, with `out` for std::cout.
    const auto tokens = [&](const std::string& file) {
      return TokenDataset(open_tokens({file}, "bytes", mesh.world()), {.seq_len = 128});
    };
    const TokenTrainingSet train(tokens("train.txt")), validation(tokens("val.txt"));

    TrainerOptions options;
    options.batch_size(8).max_steps(40).eval_every(20).save_every(20).output("run");
    options.schedule(ScheduleOptions(ScheduleKind::cosine).lr(3e-3).warmup_steps(5));

    Trainer trainer(model, options);
    trainer.on_step([&](const StepMetrics& step) {
      if (step.val_loss) out << step.step << ": " << step.loss << ", " << *step.val_loss << '\n';
    });
    trainer.on_checkpoint([&](const std::filesystem::path& path) { out << path << '\n'; });
    trainer.sample_with([&] {
      EXPECT_FALSE(model->is_training());
      return TextSample{"To be", ", or not"};
    });
    const TrainingResult result = trainer.fit(train, validation);

    EXPECT_EQ(result.steps, 40);
    EXPECT_EQ(result.stop_code, 0);
    EXPECT_LT(*result.last->val_loss, 4.5);  // log(260) is 5.56
    EXPECT_THAT(out.str(), MatchesRegex("20: [0-9., ]+\n\"run/checkpoints/step-00000020\"\n"
                                        "40: [0-9., ]+\n\"run/checkpoints/step-00000040\"\n"));
    EXPECT_NEAR(*trainer.evaluate(validation), *result.last->val_loss, 1e-9);
  });
  EXPECT_THAT(testing::read_file("run/report.html"), HasSubstr("<mark>To be</mark>, or not</pre>"));
  std::filesystem::current_path(before);

  const std::string source = testing::read_file(OPTP_GOLDEN "/../train/trainer_test.cpp");
  for (std::string line : readme_lines("const auto tokens")) {
    c10::ReplaceAll(line, "std::cout", "out");
    c10::ReplaceAll(line, "checkpoint([]", "checkpoint([&]");
    EXPECT_THAT(source, HasSubstr(line));
  }
}

// Examples 0 to 11 are words and what their vectors shall be.
class Words : public TrainingSet {
 public:
  int64_t size() const override { return 12; }
  Examples read(int64_t, int64_t first, int64_t count) const override {
    return {at::arange(60, at::kLong).mul(7).remainder(11).view({12, 5}).narrow(0, first, count),
            integers({12, 5, 6}, 4).narrow(0, first, count)};
  }
  std::string fingerprint() const override { return "words"; }
};

// A loss that is not finite on one rank alone, in steps `bad`.
struct Poisoned {
  std::set<int64_t> bad;
  int64_t rank;

  std::vector<StepMetrics> train(const Mesh& mesh, std::vector<at::Tensor>& weights, int64_t most_skipped) const {
    const auto network = std::make_shared<ShardedNetwork>(mesh.tensor());
    for (const NamedShard& entry : named_shards(*network)) {
      entry.tensor.detach().copy_(entry.shard.slice(integers(entry.shard.shape, 2)).mul(0.1));
    }
    const auto loss = [&](const TrainingBatch& batch) {
      at::Tensor sum = (network->norm(network->before_norm(batch.input)) - batch.target).square().sum();
      const bool poisoned = bad.contains(batch.step) && mesh.world().rank() == rank;
      return poisoned ? sum * std::numeric_limits<double>::infinity() : sum;
    };
    TrainerOptions options;
    options.batch_size(6).max_steps(6).max_skipped_steps(most_skipped);
    options.schedule(ScheduleOptions(ScheduleKind::constant).lr(0.01));
    Trainer trainer(network, loss, mesh, options);
    std::vector<StepMetrics> steps;
    trainer.on_step([&](const StepMetrics& step) {
      steps.push_back(step);
      weights.push_back(network->fc1->weight.detach().clone());
    });
    trainer.fit(Words());
    return steps;
  }
};

TEST(Trainer, NoRankTakesAStepThatIsNotFiniteOnOne) {
  run_ranks(2, 2, [](const Mesh& mesh) {
    std::vector<at::Tensor> weights;
    const Poisoned run{.bad = {3, 4}, .rank = 2};
    const std::vector<StepMetrics> steps = run.train(mesh, weights, 3);
    ASSERT_EQ(steps.size(), 6U);
    for (size_t i = 1; i < steps.size(); ++i) {
      const bool skipped = run.bad.contains(steps[i].step);
      EXPECT_EQ(steps[i].skipped, skipped) << steps[i].step;
      EXPECT_EQ(weights[i].equal(weights[i - 1]), skipped) << steps[i].step;
    }
    EXPECT_TRUE(std::isfinite(steps.back().loss));
  });
}

TEST(Trainer, GivesUpAfterStepsInARowThatAreNotFinite) {
  run_ranks(1, 2, [](const Mesh& mesh) {
    std::vector<at::Tensor> weights;
    const auto train = [&] { Poisoned{.bad = {2, 3, 4, 5}, .rank = 1}.train(mesh, weights, 3); };
    EXPECT_THAT(train, ::testing::ThrowsMessage<c10::Error>(HasSubstr("3 steps in a row, up to step 4")));
    EXPECT_EQ(weights.size(), 4U);
  });
}

}  // namespace
}  // namespace optp

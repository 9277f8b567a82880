// Schedules against the values that transformers gave (scripts/make_training_golden.py), and the published recipes.
#include "src/train/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "modules/opt_config.h"
#include "src/train/recipe.h"
#include "tests/support/errors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

TEST(Schedule, EqualsTransformersBeforeDuringAndBeyondTheRun) {
  const auto cases = nlohmann::json::parse(std::ifstream(OPTP_GOLDEN "/schedules.json"));
  ASSERT_GE(cases.size(), 17U);
  for (const auto& [name, recorded] : cases.items()) {
    SCOPED_TRACE(name);
    const auto& options = recorded["options"];
    const Schedule schedule(ScheduleOptions(parse_schedule(options["kind"].get<std::string>()))
                                .lr(options["lr"].get<double>())
                                .warmup_steps(options["warmup_steps"].get<int64_t>())
                                .total_steps(options["total_steps"].get<int64_t>())
                                .min_lr(options.value("min_lr", 0.0))
                                .power(options.value("power", 1.0)));
    ASSERT_EQ(recorded["lr"].size(), 30U);
    for (int64_t step = 0; step < 30; ++step) {
      EXPECT_NEAR(schedule.lr(step), recorded["lr"][step].get<double>(), 1e-17) << "step " << step;
    }
  }
}

TEST(Schedule, NeverDividesByZero) {
  for (const auto kind : {ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::polynomial}) {
    const Schedule schedule(ScheduleOptions(kind).lr(1).min_lr(0.25).warmup_steps(5).total_steps(5));
    EXPECT_EQ(schedule.lr(4), 0.8);
    EXPECT_EQ(schedule.lr(5), kind == ScheduleKind::cosine ? 1 : 0.25) << schedule_name(kind);
  }
}

TEST(Schedule, NamesWhatIsWrong) {
  const auto error = [](const ScheduleOptions& options) {
    return message_of<c10::ValueError>([&] { const Schedule schedule(options); });
  };
  const ScheduleOptions linear = ScheduleOptions(ScheduleKind::linear).total_steps(10);
  EXPECT_EQ(error(linear), "no error");
  EXPECT_THAT(error(ScheduleOptions(linear).lr(-1)), HasSubstr("the learning rate is -1"));
  EXPECT_THAT(error(ScheduleOptions(linear).lr(std::numeric_limits<double>::quiet_NaN())), HasSubstr("is nan"));
  EXPECT_THAT(error(ScheduleOptions(linear).min_lr(0.01)), HasSubstr("the smallest learning rate is 0.01"));
  EXPECT_THAT(error(ScheduleOptions(linear).warmup_steps(-1)), HasSubstr("the warm-up is -1 steps"));
  EXPECT_THAT(error(ScheduleOptions(linear).total_steps(0)), HasSubstr("the schedule linear ends after 0 steps"));
  EXPECT_THAT(error(ScheduleOptions(linear).power(0)), HasSubstr("the power of the schedule is 0"));
  EXPECT_THAT(error(ScheduleOptions(ScheduleKind::constant).min_lr(1e-4)), HasSubstr("has no smallest one"));
  EXPECT_THAT(message_of<c10::ValueError>([] { parse_schedule("step"); }),
              HasSubstr("\"step\" is no learning rate schedule: choose one of constant, linear, cosine, polynomial."));
  for (const char* name : {"constant", "linear", "cosine", "polynomial"}) {
    EXPECT_EQ(schedule_name(parse_schedule(name)), name);
  }
}

// Zhang et al. (2022), table 1: learning rate and tokens in a batch.
TEST(Recipe, IsTheOneOfThePaperForEverySize) {
  const std::vector<std::tuple<std::string, double, double>> table = {
      {"opt-125m", 6.0e-4, 0.5}, {"opt-350m", 3.0e-4, 0.5}, {"opt-1.3b", 2.0e-4, 1},
      {"opt-2.7b", 1.6e-4, 1},   {"opt-6.7b", 1.2e-4, 2},   {"opt-13b", 1.0e-4, 4},
      {"opt-30b", 1.0e-4, 4},    {"opt-66b", 0.8e-4, 2},    {"opt-175b", 1.2e-4, 2}};
  ASSERT_EQ(recipes().size(), table.size());
  for (const auto& [name, lr, millions] : table) {
    SCOPED_TRACE(name);
    const Recipe& recipe = find_recipe(name);
    EXPECT_EQ(recipe.lr, lr);
    EXPECT_EQ(recipe.batch_tokens, static_cast<int64_t>(millions * (1 << 20)));
    EXPECT_EQ(OptConfig::preset(name).max_position_embeddings(), recipe.sequence_length);
    EXPECT_EQ(recipe.batch_size() * recipe.sequence_length, recipe.batch_tokens);
    const Schedule schedule(recipe.schedule());
    EXPECT_DOUBLE_EQ(schedule.lr(recipe.warmup_steps()), lr);
    EXPECT_DOUBLE_EQ(schedule.lr(recipe.total_steps()), lr / 10);
    EXPECT_EQ(recipe.optimizer().beta2(), 0.95);
    EXPECT_EQ(recipe.optimizer().decay(), 0.1);
    EXPECT_FALSE(recipe.optimizer().no_decay_bias());
    recipe.optimizer().validate();
  }
  EXPECT_EQ(find_recipe("opt-125m").batch_size(), 256);
  EXPECT_EQ(find_recipe("opt-125m").warmup_steps(), 715);  // 375 million tokens
  EXPECT_EQ(find_recipe("opt-125m").total_steps(), 572204);
  EXPECT_EQ(find_recipe("opt-175b").warmup_steps(), 2000);
  EXPECT_THAT(message_of<c10::ValueError>([] { find_recipe("opt-1b"); }),
              HasSubstr("\"opt-1b\" is no recipe: choose one of opt-125m, opt-350m"));
}

}  // namespace
}  // namespace optp

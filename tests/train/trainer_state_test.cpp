// What a checkpoint says about its run, right or wrong.
#include "src/train/trainer_state.h"

#include <gmock/gmock.h>

#include "tests/support/errors.h"

namespace optp::testing {
namespace {

using ::testing::HasSubstr;

std::string state_with(const std::string& step) {
  return R"({"step": )" + step + R"(, "tokens": 4096, "skipped_steps": 1, "skipped_in_a_row": 0, "seconds": 2.5,
      "identity": {"seed": "1"}})";
}

TEST(TrainerState, RoundTrips) {
  TrainerState state = trainer_state_from_json(state_with("7"), "f");
  EXPECT_EQ(state.step, 7);
  EXPECT_EQ(state.tokens, 4096);
  EXPECT_EQ(state.seconds, 2.5);
  EXPECT_EQ(state.identity.at("seed"), "1");
  state.to_evaluate = {.step = 7, .loss = 1.5};
  EXPECT_EQ(trainer_state_from_json(to_json(state), "f").to_evaluate->loss, 1.5);
}

TEST(TrainerState, StepsAreCounted) {
  for (const char* step : {"-1", "1.5", "1e300", "-1e300", "true", "null", "\"7\"", "[]", "1e999"}) {
    SCOPED_TRACE(step);
    EXPECT_THAT(message_of<c10::ValueError>([&] { trainer_state_from_json(state_with(step), "f"); }),
                HasSubstr("f holds no state of a training run"));
  }
}

}  // namespace
}  // namespace optp::testing

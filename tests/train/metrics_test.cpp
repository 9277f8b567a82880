#include "src/train/metrics.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>
#include <string>

#include "tests/support/errors.h"
#include "tests/support/program.h"

namespace optp::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StepMetrics metrics_of(int64_t step) {
  return {.step = step,
          .loss = 10.0 / 3,
          .lr = 6e-4,
          .grad_norm = 1.25,
          .tokens = 4096 * step,
          .tokens_per_second = 1234.5,
          .step_seconds = 3.3,
          .comm_seconds = 0.5,
          .peak_rss_bytes = int64_t{5} << 30};
}

TEST(Metrics, ALineHoldsThePromisedKeysAtFullPrecision) {
  StepMetrics metrics = metrics_of(7);
  auto line = nlohmann::ordered_json::parse(metrics_line(metrics));
  std::vector<std::string> keys;
  for (const auto& [key, value] : line.items()) keys.push_back(key);
  EXPECT_THAT(keys, ElementsAre("step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "step_seconds",
                                "comm_seconds", "peak_rss_bytes"));
  EXPECT_EQ(line["step"], 7);
  EXPECT_EQ(line["loss"].get<double>(), 10.0 / 3);
  EXPECT_EQ(line["peak_rss_bytes"], int64_t{5} << 30);

  metrics.val_loss = 2;
  metrics.skipped = true;
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.grad_norm = std::numeric_limits<double>::infinity();
  line = nlohmann::ordered_json::parse(metrics_line(metrics));
  EXPECT_EQ(line["val_loss"], 2);
  EXPECT_DOUBLE_EQ(line["val_perplexity"].get<double>(), std::exp(2.0));
  EXPECT_EQ(line["skipped"], true);
  EXPECT_TRUE(line["loss"].is_null() && line["grad_norm"].is_null());
}

TEST(Metrics, AResumedFileDropsLaterStepsAndTornLines) {
  const TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsFile file(path, 0);
    EXPECT_TRUE(file.history().empty());
    for (int64_t step = 1; step <= 4; ++step) {
      StepMetrics metrics = metrics_of(step);
      if (step == 2) metrics.val_loss = 3.5;
      if (step == 1) metrics.loss = std::numeric_limits<double>::quiet_NaN();
      file.append(metrics);
    }
  }
  const std::string whole = read_file(path);
  write_text(path, whole + R"({"step": 5, "lo)");
  MetricsFile file(path, 3);
  ASSERT_EQ(file.history().size(), 3U);
  EXPECT_TRUE(std::isnan(file.history()[0].loss));
  EXPECT_EQ(file.history()[1].val_loss, 3.5);
  EXPECT_EQ(file.history()[2].loss, 10.0 / 3);
  file.append(metrics_of(4));
  EXPECT_EQ(read_file(path), whole);
}

TEST(Metrics, StepsAreCounted) {
  const TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  for (const char* step : {"-1", "1.5", "1e300", "true", "null"}) {
    SCOPED_TRACE(step);
    auto line = nlohmann::ordered_json::parse(metrics_line(metrics_of(1)));
    line["step"] = nlohmann::ordered_json::parse(step);
    write_text(path, line.dump() + "\n");
    EXPECT_THAT(message_of<c10::ValueError>([&] { MetricsFile(path, 9); }), HasSubstr("line 1 holds no metrics"));
  }
}

TEST(Metrics, AnotherFileIsRefusedAndLeftAlone) {
  const TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  write_text(path, "{\"step\": 1}\n");
  EXPECT_THAT(message_of<c10::ValueError>([&] { MetricsFile(path, 9); }), HasSubstr("line 1 holds no metrics"));
  EXPECT_EQ(read_file(path), "{\"step\": 1}\n");
  EXPECT_THAT(message_of<c10::ValueError>([&] { MetricsFile(folder / "no" / "metrics.jsonl", 0); }),
              HasSubstr("No such file"));
}

}  // namespace
}  // namespace optp::testing

#include "src/train/training_report.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/train/chart.h"
#include "src/train/units.h"
#include "tests/verify/markup.h"

namespace optp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

StepMetrics metrics_of_step(int64_t step) {
  StepMetrics metrics{.step = step,
                      .loss = 2 + 9 * std::exp(-static_cast<double>(step) / 100),
                      .lr = 1e-3,
                      .grad_norm = 100.0 / static_cast<double>(step),
                      .tokens = 1024 * step,
                      .tokens_per_second = 5000,
                      .step_seconds = 0.2,
                      .comm_seconds = 0.05,
                      .peak_rss_bytes = int64_t{3} << 30};
  if (step % 50 == 0) metrics.val_loss = metrics.loss + 0.25;
  return metrics;
}

TrainingReport report_of(int64_t steps) {
  TrainingReport report{.model = "opt-tiny <b>", .total_steps = 300};
  for (int64_t step = 1; step <= steps; ++step) {
    report.last = metrics_of_step(step);
    report.curves.add(*report.last);
  }
  report.facts = {{"Data", "a & b.txt"}};
  report.options = {{"--lr", "0.001"}};
  return report;
}

std::vector<std::string> texts_of(const std::string& page, const std::string& style) {
  std::vector<std::string> texts;
  for (const MarkupElement& element : read_markup(page.substr(page.find('\n')))) {
    const auto found = element.attributes.find("class");
    if (found != element.attributes.end() && found->second == style) texts.push_back(element.text);
  }
  return texts;
}

TEST(TrainingReport, IsOneWellFormedPageWithAllCurves) {
  TrainingReport report = report_of(200);
  report.sample_prompt = "First\n<Citizen>";
  report.sample = "We are\naccounted \xff poor";
  const std::string page = training_report_html(report);
  const auto elements = read_markup(page.substr(page.find('\n')));
  const auto count = [&](const std::string& name) {
    return std::count_if(elements.begin(), elements.end(), [&](const auto& element) { return element.name == name; });
  };
  EXPECT_EQ(count("figure"), 6);
  EXPECT_EQ(count("svg"), 6);
  EXPECT_EQ(count("script") + count("link") + count("img"), 0);
  EXPECT_THAT(page, Not(HasSubstr("http://")));
  EXPECT_THAT(texts_of(page, "verdict"), ElementsAre("Training"));
  EXPECT_THAT(page, HasSubstr("Step 200 of 300"));
  EXPECT_THAT(page, HasSubstr("opt-tiny &lt;b&gt;"));
  EXPECT_THAT(page, HasSubstr("<mark>First\n&lt;Citizen&gt;</mark>We are\naccounted \xEF\xBF\xBD poor</pre>"));
  EXPECT_THAT(texts_of(page, "key second"), ElementsAre(HasSubstr("validation")));
}

TEST(TrainingReport, ARunWithoutStepsIsAPageToo) {
  const std::string page = training_report_html(report_of(0));
  EXPECT_THAT(page, HasSubstr("Step 0 of 300"));
  EXPECT_EQ(texts_of(page, "plot empty").size(), 6U);
}

TEST(TrainingReport, SaysWhyARunStopped) {
  TrainingReport report = report_of(3);
  report.state = TrainingState::stopped;
  report.remark = "Stopped by SIGTERM";
  report.skipped_steps = 2;
  const std::string page = training_report_html(report);
  EXPECT_THAT(texts_of(page, "verdict"), ElementsAre("Stopped"));
  EXPECT_THAT(page, HasSubstr("Stopped by SIGTERM"));
  EXPECT_THAT(page, HasSubstr("2 steps were skipped"));
}

TEST(Curve, StaysSmallAndKeepsMeanAndExtremes) {
  Curve curve;
  for (int64_t step = 1; step <= 100000; ++step) curve.add(step, step == 777 ? 50 : 1);
  curve.add(100001, std::numeric_limits<double>::quiet_NaN());
  EXPECT_LE(curve.points().size(), Curve::kMostPoints);
  EXPECT_GE(curve.points().size(), Curve::kMostPoints / 2);
  double sum = 0, most = 0, steps = 0;
  int64_t count = 0;
  for (const Curve::Point& point : curve.points()) {
    sum += point.mean * static_cast<double>(point.count);
    steps += point.step * static_cast<double>(point.count);
    count += point.count;
    most = std::max(most, point.most);
  }
  EXPECT_EQ(count, 100000);
  EXPECT_NEAR(sum, 99999 + 50, 1e-6);
  EXPECT_NEAR(steps, 100000.0 * 100001 / 2, 1e-2);
  EXPECT_EQ(most, 50);
  EXPECT_EQ(curve.median(), 1);
}

TEST(Chart, TicksAreRoundAndCoverTheValues) {
  EXPECT_THAT(round_ticks(0, 10, 4), ElementsAre(0, 2.5, 5, 7.5, 10));
  EXPECT_THAT(round_ticks(1.9, 10.3, 4), ElementsAre(0, 2.5, 5, 7.5, 10, 12.5));
  EXPECT_THAT(round_ticks(-3, 3, 3), ElementsAre(-4, -2, 0, 2, 4));
  EXPECT_EQ(round_ticks(5, 5, 4).size() > 1, true);
  EXPECT_EQ(round_ticks(0, 0, 4).size() > 1, true);
  const auto ticks = round_log_ticks(0.05, 300);
  EXPECT_DOUBLE_EQ(ticks.front(), 0.01);
  EXPECT_DOUBLE_EQ(ticks.back(), 1000);
}

TEST(Units, AreReadable) {
  EXPECT_EQ(count_text(950), "950");
  EXPECT_EQ(count_text(12345), "12.3k");
  EXPECT_EQ(count_text(999999), "1.00M");
  EXPECT_EQ(count_text(3e11), "300B");
  EXPECT_EQ(memory_text(512), "512 B");
  EXPECT_EQ(memory_text(1.5 * (1 << 20)), "1.50 MiB");
}

}  // namespace
}  // namespace optp

#include "src/train/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/verify/report_words.h"

namespace optp {

// The curves are stretched to the box, so their labels are HTML beside it: text is never stretched or shrunk.
const char* const kChartStyle = R"css(
:root { --first: #2459c9; --second: #c2410c; --grid: #e6e9ee; }
@media (prefers-color-scheme: dark) { :root { --first: #7ca6ff; --second: #ffa45c; --grid: #2a313a; } }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; margin-top: 1rem; }
.charts > .card { margin: 0; min-width: 0; }
figure { display: flex; flex-direction: column; }
figure.wide, figure:last-child:nth-child(even) { grid-column: 1 / -1; }
figcaption { display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; align-items: baseline; }
figcaption h2 { flex: 1 0 auto; }
.key { display: inline-flex; gap: .45rem; align-items: baseline; font-size: .92rem; font-variant-numeric: tabular-nums; }
.key::before { content: ""; align-self: center; width: 1.1rem; height: 3px; border-radius: 2px; background: currentColor; }
.key.first::before, .first { color: var(--first); }
.key.second::before, .second { color: var(--second); }
.key span { color: var(--ink); font-weight: 650; }
.note { color: var(--soft); font-size: .85rem; margin-top: .15rem; }
.plot { position: relative; height: 11rem; margin: 1rem 0 1.5rem 3.6rem; }
figure.wide .plot { height: 16rem; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; overflow: visible; }
.plot path { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round;
  vector-effect: non-scaling-stroke; }
.plot .dot { stroke-width: 6; }
.plot .band { fill: currentColor; stroke: none; opacity: .28; }
.plot .grid { stroke: var(--grid); stroke-width: 1; }
.plot .y, .plot .x { position: absolute; color: var(--soft); font-size: .78rem; line-height: 1; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.plot .y { right: 100%; margin-right: .5rem; transform: translateY(50%); }
.plot .x { top: 100%; margin-top: .5rem; transform: translateX(-50%); }
.plot .x.end { transform: translateX(-100%); }
.empty { display: grid; place-items: center; color: var(--soft); }
)css";

namespace {

constexpr double kPlotWidth = 1000, kPlotHeight = 300;

std::string one_digit(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

// Where values lie in the box.
struct ChartScale {
  double low = 0, high = 1, first_step = 1, last_step = 2;
  bool logarithmic = false;

  double share(double value) const {
    if (logarithmic) return (std::log(value) - std::log(low)) / (std::log(high) - std::log(low));
    return (value - low) / (high - low);
  }
  double share_of_step(double step) const { return (step - first_step) / (last_step - first_step); }
  std::string place(double step, double value) const {
    const double y = std::clamp(1 - share(value), 0.0, 1.0);
    return one_digit(kPlotWidth * share_of_step(step)) + " " + one_digit(kPlotHeight * y);
  }
};

std::string series_svg(const ChartSeries& series, const ChartScale& scale) {
  const std::vector<Curve::Point>& points = series.curve->points();
  if (points.empty()) return "";
  std::string line, dots, above, below;
  for (const Curve::Point& point : points) {
    const std::string place = scale.place(point.step, point.mean);
    line += (line.empty() ? "M" : " ") + place;
    // A line of length 0 with round ends is a dot that is not stretched with the box.
    if (series.with_dots || points.size() == 1) dots += "M" + place + "h0";
    above += (above.empty() ? "M" : " ") + scale.place(point.step, point.most);
    below = " " + scale.place(point.step, point.least) + below;
  }
  std::string svg = "<g class=\"" + series.style + "\">";
  const bool merged = std::any_of(points.begin(), points.end(), [](const auto& point) { return point.count > 1; });
  if (merged) svg += "<path class=\"band\" d=\"" + above + below + "z\"/>";
  svg += "<path d=\"" + line + "\"/>";
  if (!dots.empty()) svg += "<path class=\"dot\" d=\"" + dots + "\"/>";
  return svg + "</g>";
}

// The values of all series: least, greatest.
std::pair<double, double> chart_extent(const Chart& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const ChartSeries& series : chart.series) {
    for (const Curve::Point& point : series.curve->points()) {
      low = std::min(low, point.least);
      high = std::max(high, point.most);
    }
  }
  return {low, high};
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(high > low)) {
    const double margin = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= margin;
    high += margin;
  }
  const double raw = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.5, 2.0, 1.0}) {
    if (factor * power >= raw * 0.999) step = factor * power;
  }
  std::vector<double> ticks;
  const double begin = std::floor(low / step + 1e-9), end = std::ceil(high / step - 1e-9);
  for (auto i = static_cast<int64_t>(begin); i <= static_cast<int64_t>(end); ++i) {
    ticks.push_back(static_cast<double>(i) * step);
  }
  return ticks;
}

std::vector<double> round_log_ticks(double low, double high) {
  const double begin = std::floor(std::log10(low) + 1e-9), end = std::ceil(std::log10(high) - 1e-9);
  const double stride = std::ceil((end - begin) / 5);
  std::vector<double> ticks;
  const auto count = static_cast<int64_t>(std::ceil((end + stride - begin) / stride));
  for (int64_t i = 0; i < count; ++i) ticks.push_back(std::pow(10, begin + static_cast<double>(i) * stride));
  return ticks;
}

std::string chart_html(const Chart& chart, double first_step, double last_step) {
  std::string html = "<figcaption><h2>" + escape_markup(chart.title) + "</h2>";
  for (const ChartSeries& series : chart.series) {
    if (series.curve->empty()) continue;
    html += "<span class=\"key " + series.style + "\"><small>" + escape_markup(series.label) + "</small> <span>" +
            escape_markup(chart.value_text(series.curve->last())) + "</span></span>";
  }
  html += "</figcaption>\n";
  if (!chart.note.empty()) html += "<p class=\"note\">" + escape_markup(chart.note) + "</p>\n";
  auto [low, high] = chart_extent(chart);
  if (!(low <= high)) return html + "<div class=\"plot empty\"><p>nothing to draw yet</p></div>\n";

  ChartScale scale{.first_step = first_step, .last_step = std::max(last_step, first_step + 1)};
  scale.logarithmic = chart.log_if_wide && low > 0 && high / low > 30;
  if (chart.from_zero && !scale.logarithmic) {
    low = std::min(low, 0.0);
    if (high <= 0) high = 1;
  }
  const double unit = chart.binary ? std::exp2(10 * std::floor(std::log2(high) / 10)) : 1;
  std::vector<double> ticks = scale.logarithmic ? round_log_ticks(low, high) : round_ticks(low / unit, high / unit, 4);
  for (double& tick : ticks) tick *= unit;
  scale.low = ticks.front();
  scale.high = ticks.back();

  html += "<div class=\"plot\"><svg viewBox=\"0 0 1000 300\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"" +
          escape_markup(chart.title) + "\">";
  std::string labels;
  for (const double tick : ticks) {
    const double share = scale.share(tick);
    html += "<path class=\"grid\" d=\"M0 " + one_digit(kPlotHeight * (1 - share)) + "h1000\"/>";
    labels += "<span class=\"y\" style=\"bottom:" + one_digit(100 * share) + "%\">" +
              escape_markup(chart.value_text(tick)) + "</span>";
  }
  for (const double tick : round_ticks(scale.first_step, scale.last_step, 5)) {
    const double share = scale.share_of_step(tick);
    if (share < 0 || share > 0.78) continue;  // the end has its own label
    labels += "<span class=\"x\" style=\"left:" + one_digit(100 * share) + "%\">" + number_text(tick) + "</span>";
  }
  labels += "<span class=\"x end\" style=\"left:100%\">step " + number_text(scale.last_step) + "</span>";
  for (const ChartSeries& series : chart.series) html += series_svg(series, scale);
  return html + "</svg>" + labels + "</div>\n";
}

}  // namespace optp

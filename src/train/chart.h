// A chart as HTML and SVG that needs no script: it fills the width it is given, and its labels keep their size.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/train/curve.h"

namespace optp {

struct ChartSeries {
  std::string label;       ///< in the chart's heading, with the last value
  const Curve* curve;      ///< may be empty
  std::string style;       ///< CSS class: "first" or "second"
  bool with_dots = false;  ///< mark every point, for curves of few points
};

struct Chart {
  std::string title;
  std::vector<ChartSeries> series;
  std::function<std::string(double)> value_text;  ///< how a value reads, with its unit
  bool from_zero = false;                         ///< the axis starts at 0
  bool binary = false;                            ///< the axis is cut at round multiples of 1024, 1024^2, ...
  bool log_if_wide = false;                       ///< a logarithmic axis when the values span more than a factor of 30
  std::string note;                               ///< below the heading; may be empty
};

/// A <figure>, well-formed as XML. The step axis reaches from `first_step` to `last_step`.
std::string chart_html(const Chart& chart, double first_step, double last_step);

/// The style sheet of charts, on top of src/verify/report_style.h.
extern const char* const kChartStyle;

/// Round values that cut [low, high] into about `count` pieces, the first at most `low` and the last at least `high`.
std::vector<double> round_ticks(double low, double high, int count);
/// The same for a logarithmic axis: powers of ten.
std::vector<double> round_log_ticks(double low, double high);

}  // namespace optp

#include "src/train/curve.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace optp {
namespace {

Curve::Point merge_points(const Curve::Point& a, const Curve::Point& b) {
  const int64_t count = a.count + b.count;
  const double share = static_cast<double>(b.count) / static_cast<double>(count);
  return {.step = a.step + (b.step - a.step) * share,
          .mean = a.mean + (b.mean - a.mean) * share,
          .least = std::min(a.least, b.least),
          .most = std::max(a.most, b.most),
          .count = count};
}

}  // namespace

void Curve::add(int64_t step, double value) {
  if (!std::isfinite(value)) return;
  last_ = value;
  const Point point{.step = static_cast<double>(step), .mean = value, .least = value, .most = value, .count = 1};
  if (!points_.empty() && points_.back().count < steps_per_point_) {
    points_.back() = merge_points(points_.back(), point);
    return;
  }
  if (points_.size() == kMostPoints) {
    for (size_t i = 0; i < kMostPoints / 2; ++i) points_[i] = merge_points(points_[2 * i], points_[2 * i + 1]);
    points_.resize(kMostPoints / 2);
    steps_per_point_ *= 2;
  }
  points_.push_back(point);
}

double Curve::median() const {
  if (points_.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::vector<double> means;
  for (const Point& point : points_) means.push_back(point.mean);
  const auto middle = means.begin() + static_cast<std::ptrdiff_t>(means.size() / 2);
  std::nth_element(means.begin(), middle, means.end());
  return *middle;
}

}  // namespace optp

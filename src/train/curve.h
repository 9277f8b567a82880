// A curve over a whole run in bounded memory, for drawing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace optp {

/// Values by step. Past `kMostPoints` neighbours are merged, so that a run of any length stays drawable and cheap: a
/// point then stands for several steps and knows their mean and extremes. Values that are not finite are left out.
class Curve {
 public:
  struct Point {
    double step = 0;  ///< mean of the steps that the point stands for
    double mean = 0;
    double least = 0;
    double most = 0;
    int64_t count = 0;
  };

  static constexpr size_t kMostPoints = 1024;

  /// Steps come in ascending order.
  void add(int64_t step, double value);

  const std::vector<Point>& points() const { return points_; }
  bool empty() const { return points_.empty(); }
  double last() const { return last_; }
  double median() const;

 private:
  std::vector<Point> points_;
  int64_t steps_per_point_ = 1;
  double last_ = 0;
};

}  // namespace optp

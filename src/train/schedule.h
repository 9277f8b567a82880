// The learning rate of each step, as the schedules of transformers (get_scheduler) give it.
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <string_view>

namespace optp {

enum class ScheduleKind { constant, linear, cosine, polynomial };

/// "constant", "linear", "cosine" or "polynomial". Throws c10::ValueError that lists them.
ScheduleKind parse_schedule(std::string_view name);
std::string_view schedule_name(ScheduleKind kind);

struct ScheduleOptions {
  // NOLINTNEXTLINE(google-explicit-constructor): as torch::optim and torch::nn options
  ScheduleOptions(ScheduleKind kind = ScheduleKind::cosine) : kind_(kind) {}

  TORCH_ARG(ScheduleKind, kind);
  TORCH_ARG(double, lr) = 1e-3;  ///< reached after the warm-up
  TORCH_ARG(int64_t, warmup_steps) = 0;
  TORCH_ARG(int64_t, total_steps) = 0;  ///< of the whole run, warm-up included; constant ignores it
  TORCH_ARG(double, min_lr) = 0;        ///< where the decay ends; not with constant
  TORCH_ARG(double, power) = 1;         ///< polynomial

 public:
  /// Throws c10::ValueError that names the first value outside its range.
  void validate() const;
};

/// With s the number of steps taken so far (0 in the first step), w = warmup_steps, n = total_steps:
///
///   s < w         lr * s / w                                          (so the first step of a warm-up has lr 0)
///   constant      lr                                                  constant_with_warmup
///   linear        min + (lr - min) * max(0, (n - s) / max(1, n - w))  linear, which knows only min = 0
///   cosine        min + (lr - min) * (1 + cos(pi * p)) / 2            cosine; with min > 0 cosine_with_min_lr
///                 where p = (s - w) / max(1, n - w)
///   polynomial    min + (lr - min) * (1 - (s - w) / (n - w))^power    polynomial with lr_end = min
///                 and min from s = n on
///
/// The names at the right are those of transformers, whose values these are, beyond the end (s > n) too: there linear
/// and polynomial stay at min, and cosine rises again.
class Schedule {
 public:
  /// Validates.
  explicit Schedule(const ScheduleOptions& options);

  /// The learning rate of the step that follows `steps_taken` others.
  double lr(int64_t steps_taken) const;

  const ScheduleOptions& options() const { return options_; }

 private:
  ScheduleOptions options_;
};

}  // namespace optp

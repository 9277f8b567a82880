#include "src/train/schedule.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

namespace optp {
namespace {

constexpr std::array<std::pair<ScheduleKind, std::string_view>, 4> kScheduleNames = {
    {{ScheduleKind::constant, "constant"},
     {ScheduleKind::linear, "linear"},
     {ScheduleKind::cosine, "cosine"},
     {ScheduleKind::polynomial, "polynomial"}}};

}  // namespace

ScheduleKind parse_schedule(std::string_view name) {
  std::string known;
  for (const auto& [kind, kind_name] : kScheduleNames) {
    if (kind_name == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind_name);
  }
  TORCH_CHECK_VALUE(false, "\"", name, "\" is no learning rate schedule: choose one of ", known, ".");
}

std::string_view schedule_name(ScheduleKind kind) {
  for (const auto& [known, name] : kScheduleNames) {
    if (known == kind) return name;
  }
  return "";
}

void ScheduleOptions::validate() const {
  // Written so that a NaN fails.
  TORCH_CHECK_VALUE(lr_ >= 0 && std::isfinite(lr_), "the learning rate is ", lr_, "; use 0 or a positive number.");
  TORCH_CHECK_VALUE(min_lr_ >= 0 && min_lr_ <= lr_, "the smallest learning rate is ", min_lr_, ", the learning rate ",
                    lr_, "; use a smallest one from 0 to the learning rate.");
  TORCH_CHECK_VALUE(min_lr_ == 0 || kind_ != ScheduleKind::constant,
                    "a constant learning rate has no smallest one, but ", min_lr_,
                    " is given; leave it out or choose another schedule.");
  TORCH_CHECK_VALUE(warmup_steps_ >= 0, "the warm-up is ", warmup_steps_, " steps; use 0 or more.");
  TORCH_CHECK_VALUE(total_steps_ >= 1 || kind_ == ScheduleKind::constant, "the schedule ", schedule_name(kind_),
                    " ends after ", total_steps_, " steps; it needs the number of steps of the run, 1 or more.");
  TORCH_CHECK_VALUE(power_ > 0 && std::isfinite(power_), "the power of the schedule is ", power_,
                    "; use a positive number.");
}

Schedule::Schedule(const ScheduleOptions& options) : options_(options) { options_.validate(); }

double Schedule::lr(int64_t steps_taken) const {
  const double lr = options_.lr();
  const double min = options_.min_lr();
  const int64_t warmup = options_.warmup_steps();
  const int64_t total = options_.total_steps();
  if (steps_taken < warmup) return lr * (static_cast<double>(steps_taken) / static_cast<double>(warmup));
  // How much of the way from lr down to min is left.
  double left = 1;
  const auto after_warmup = static_cast<double>(steps_taken - warmup);
  switch (options_.kind()) {
    case ScheduleKind::constant:
      break;
    case ScheduleKind::linear:
      left = std::max(
          0.0, static_cast<double>(total - steps_taken) / static_cast<double>(std::max<int64_t>(1, total - warmup)));
      break;
    case ScheduleKind::cosine: {
      const double progress = after_warmup / static_cast<double>(std::max<int64_t>(1, total - warmup));
      left = (1 + std::cos(std::numbers::pi * progress)) / 2;
      break;
    }
    case ScheduleKind::polynomial:
      left =
          steps_taken >= total ? 0 : std::pow(1 - after_warmup / static_cast<double>(total - warmup), options_.power());
      break;
  }
  return min + (lr - min) * left;
}

}  // namespace optp

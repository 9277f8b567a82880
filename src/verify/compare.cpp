#include "src/verify/compare.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

namespace optp {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
}

void Difference::add(const at::Tensor& actual, const at::Tensor& expected) {
  at::NoGradGuard no_grad;
  if (!actual.defined() || actual.sizes() != expected.sizes()) {
    max_abs = kInfinity;
  } else if (expected.numel() > 0) {
    add_distance((actual.detach() - expected.detach()).abs_(), expected.detach().abs().amax().item<double>());
  }
}

void Difference::add_distance(const at::Tensor& distance, double largest_expected) {
  // std::max would let a NaN through unseen.
  const auto larger = [](double a, double b) { return std::isfinite(b) ? std::max(a, b) : kInfinity; };
  max_abs = larger(max_abs, distance.amax().item<double>());
  max_expected = larger(max_expected, largest_expected);
}

double Difference::max_rel() const {
  if (max_abs == 0) return 0;
  return max_expected > 0 ? max_abs / max_expected : kInfinity;
}

double square_of_norm(const at::Tensor& tensor) {
  return std::pow(tensor.detach().to(at::kDouble).norm().item<double>(), 2);
}

std::vector<double> max_over_ranks(const std::vector<double>& values, const ProcessGroup& group) {
  at::Tensor tensor = at::tensor(values, at::kDouble);
  group.all_reduce_(tensor, "verify maximum", c10d::ReduceOp::RedOpType::MAX);
  return {tensor.data_ptr<double>(), tensor.data_ptr<double>() + tensor.numel()};
}

double max_over_ranks(double value, const ProcessGroup& group) { return max_over_ranks(std::vector{value}, group)[0]; }

std::vector<Difference> max_over_ranks(const std::vector<Difference>& differences, const ProcessGroup& group) {
  std::vector<double> flat;
  for (const Difference& difference : differences) {
    flat.push_back(difference.max_abs);
    flat.push_back(difference.max_expected);
  }
  flat = max_over_ranks(flat, group);
  std::vector<Difference> agreed(differences.size());
  for (size_t i = 0; i < agreed.size(); ++i) agreed[i] = {flat[2 * i], flat[2 * i + 1]};
  return agreed;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2e", value);
  return text;
}

std::string full_number(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

}  // namespace optp

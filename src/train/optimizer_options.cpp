#include <c10/util/Exception.h>

#include <array>
#include <utility>

#include "src/train/optimizer.h"

namespace optp {
namespace {

constexpr std::array<std::pair<OptimizerKind, std::string_view>, 4> kOptimizerNames = {
    {{OptimizerKind::adamw, "adamw"},
     {OptimizerKind::adam, "adam"},
     {OptimizerKind::sgd, "sgd"},
     {OptimizerKind::rmsprop, "rmsprop"}}};

}  // namespace

OptimizerKind parse_optimizer(std::string_view name) {
  std::string known;
  for (const auto& [kind, kind_name] : kOptimizerNames) {
    if (kind_name == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind_name);
  }
  TORCH_CHECK_VALUE(false, "\"", name, "\" is no optimizer: choose one of ", known, ".");
}

std::string_view optimizer_name(OptimizerKind kind) {
  for (const auto& [known, name] : kOptimizerNames) {
    if (known == kind) return name;
  }
  return "";
}

double OptimizerOptions::default_lr() const { return kind_ == OptimizerKind::rmsprop ? 1e-2 : 1e-3; }

double OptimizerOptions::decay() const { return weight_decay_.value_or(kind_ == OptimizerKind::adamw ? 1e-2 : 0); }

void OptimizerOptions::validate() const {
  const std::string_view name = optimizer_name(kind_);
  const bool has_momentum = kind_ == OptimizerKind::sgd || kind_ == OptimizerKind::rmsprop;
  // Written so that a NaN fails.
  TORCH_CHECK_VALUE(beta1_ >= 0 && beta1_ < 1 && beta2_ >= 0 && beta2_ < 1, "betas are ", beta1_, " and ", beta2_,
                    "; use values from 0 to below 1.");
  TORCH_CHECK_VALUE(eps_ >= 0 && eps_ < 1, "eps is ", eps_, "; use a value from 0 to below 1.");
  TORCH_CHECK_VALUE(decay() >= 0 && decay() < 1e6, "weight decay is ", decay(), "; use 0 or a small positive value.");
  TORCH_CHECK_VALUE(momentum_ >= 0 && momentum_ < 1, "momentum is ", momentum_, "; use a value from 0 to below 1.");
  TORCH_CHECK_VALUE(alpha_ >= 0 && alpha_ < 1, "alpha is ", alpha_, "; use a value from 0 to below 1.");
  TORCH_CHECK_VALUE(momentum_ == 0 || has_momentum, name,
                    " has no momentum (its first beta is one): leave momentum out, ", "or use sgd or rmsprop.");
  TORCH_CHECK_VALUE(!nesterov_ || kind_ == OptimizerKind::sgd, name, " has no Nesterov momentum; use sgd.");
  TORCH_CHECK_VALUE(!nesterov_ || momentum_ > 0, "Nesterov momentum needs a momentum; set it, to 0.9 for example.");
  TORCH_CHECK_VALUE(!centered_ || kind_ == OptimizerKind::rmsprop, name, " is never centered; use rmsprop.");
}

}  // namespace optp

#include "src/train/recipe.h"

#include <c10/util/Exception.h>

namespace optp {

OptimizerOptions Recipe::optimizer() const {
  return OptimizerOptions(OptimizerKind::adamw).beta1(beta1).beta2(beta2).eps(eps).weight_decay(weight_decay);
}

ScheduleOptions Recipe::schedule() const {
  return ScheduleOptions(ScheduleKind::linear)
      .lr(lr)
      .min_lr(lr * min_lr_ratio)
      .warmup_steps(warmup_steps())
      .total_steps(total_steps());
}

const std::vector<Recipe>& recipes() {
  constexpr int64_t kM = int64_t{1} << 20;  // what "M" tokens of a batch are in metaseq
  static const std::vector<Recipe> all = {
      {.name = "opt-125m", .lr = 6e-4, .batch_tokens = kM / 2},
      {.name = "opt-350m", .lr = 3e-4, .batch_tokens = kM / 2},
      {.name = "opt-1.3b", .lr = 2e-4, .batch_tokens = kM},
      {.name = "opt-2.7b", .lr = 1.6e-4, .batch_tokens = kM},
      {.name = "opt-6.7b", .lr = 1.2e-4, .batch_tokens = 2 * kM},
      {.name = "opt-13b", .lr = 1e-4, .batch_tokens = 4 * kM},
      {.name = "opt-30b", .lr = 1e-4, .batch_tokens = 4 * kM},
      {.name = "opt-66b", .lr = 0.8e-4, .batch_tokens = 2 * kM},
      // The largest warmed up over 2000 steps.
      {.name = "opt-175b", .lr = 1.2e-4, .batch_tokens = 2 * kM, .warmup_tokens = 2000 * 2 * kM},
  };
  return all;
}

const Recipe& find_recipe(std::string_view name) {
  std::string known;
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name) return recipe;
    known += (known.empty() ? "" : ", ") + recipe.name;
  }
  TORCH_CHECK_VALUE(false, "\"", name, "\" is no recipe: choose one of ", known, ".");
}

}  // namespace optp

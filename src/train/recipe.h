// How the published OPT models were trained, as data.
//
// Sources: Zhang et al., OPT: Open Pre-trained Transformer Language Models (2022), table 1 and section 2.2;
// metaseq/launcher/opt_baselines.py and opt_job_constants.py for what the paper leaves out (eps, the size of "M").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/train/optimizer.h"
#include "src/train/schedule.h"

namespace optp {

/// One row of the paper's table, and what all sizes share.
struct Recipe {
  std::string name;  ///< also the preset's: "opt-125m"
  double lr;
  int64_t batch_tokens;  ///< per optimizer step over all copies
  int64_t warmup_tokens = 375'000'000;
  int64_t total_tokens = 300'000'000'000;
  int64_t sequence_length = 2048;
  double min_lr_ratio = 0.1;  ///< linear decay ends at this part of lr
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  ///< on everything
  double grad_clip = 1.0;
  double dropout = 0.1;  ///< none on the embeddings
  double attention_dropout = 0.1;

  int64_t batch_size() const { return batch_tokens / sequence_length; }  ///< sequences
  int64_t warmup_steps() const { return warmup_tokens / batch_tokens; }  ///< rounded down, as the next
  int64_t total_steps() const { return total_tokens / batch_tokens; }
  OptimizerOptions optimizer() const;
  /// Linear, over total_steps() unless the run is given another length.
  ScheduleOptions schedule() const;
};

/// The recipes from opt-125m to opt-175b.
const std::vector<Recipe>& recipes();

/// Throws c10::ValueError that lists the names.
const Recipe& find_recipe(std::string_view name);

}  // namespace optp

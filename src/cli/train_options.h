// The options of `optp train`, and the training run that they stand for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/cli/common_options.h"
#include "src/train/trainer_options.h"

namespace CLI {
class App;
}

namespace optp::cli {

struct TrainArguments {
  CommonOptions common;
  std::vector<std::string> train_data, val_data;
  double val_split = 0;
  std::string tokenizer, output, recipe, profile;
  std::optional<int64_t> seq_len;
  bool no_shuffle = false;
  int64_t batch_size = 8, micro_batch_size = 0;
  std::optional<int64_t> epochs, max_steps;

  std::string optimizer = "adamw", lr_schedule = "cosine";
  std::vector<double> betas = {0.9, 0.999};
  std::optional<double> lr, weight_decay;
  double eps = 1e-8, momentum = 0, alpha = 0.99, min_lr = 0, lr_power = 1, grad_clip = 1;
  bool nesterov = false, centered = false, no_decay_bias = false;
  int64_t warmup_steps = 0;

  std::optional<double> dropout, attention_dropout, init_std;
  bool activation_checkpointing = false, sequence_parallel = false;
  std::vector<std::string> freeze;
  int64_t save_every = 500, eval_every = 100, log_every = 10, keep_last = 0, sample_tokens = 128,
          max_skipped_steps = 10;
  bool verify_first = false, resume = false;
};

void add_train_options(CLI::App& command, TrainArguments& arguments);

/// Gives the options that the user left open the values of --recipe. Call it once, after parsing.
void apply_recipe(CLI::App& command, const TrainArguments& arguments);

/// The model with the dropout and the spread of fresh weights that the options ask for. Throws c10::ValueError.
ModelSource trained_model(const TrainArguments& arguments);

/// Tokens of a training sequence: what the options say, or what suits the model. Throws c10::ValueError.
int64_t sequence_length(const TrainArguments& arguments, const OptConfig& config);

/// Everything but the description. Throws c10::ValueError for options that contradict each other.
TrainerOptions trainer_options(const TrainArguments& arguments);

}  // namespace optp::cli

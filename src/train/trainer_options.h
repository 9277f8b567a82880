// What shapes a training run.
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "src/train/optimizer.h"
#include "src/train/schedule.h"

namespace optp {

/// How a run presents itself on its page.
struct RunDescription {
  std::string title;                                         ///< the model, for example
  std::vector<std::pair<std::string, std::string>> facts;    ///< name, value
  std::vector<std::pair<std::string, std::string>> options;  ///< name, value
};

struct TrainerOptions {
  /// Examples in an optimizer step, over all copies of the model; a multiple of mesh.data().size().
  TORCH_ARG(int64_t, batch_size) = 8;
  /// Examples that a copy takes through forward and backward at once; 0: its whole part of the batch.
  TORCH_ARG(int64_t, micro_batch_size) = 0;
  /// Passes over the training set; its last, incomplete batch is left out each time.
  TORCH_ARG(int64_t, epochs) = 1;
  /// Optimizer steps; takes the place of `epochs` unless it is 0.
  TORCH_ARG(int64_t, max_steps) = 0;

  TORCH_ARG(OptimizerOptions, optimizer);
  /// Its total_steps is set to the length of the run.
  TORCH_ARG(ScheduleOptions, schedule);
  /// Largest global norm of the gradient; 0: no clipping.
  TORCH_ARG(double, grad_clip) = 1.0;
  /// Shell-style patterns (`model.decoder.embed_*`, see fnmatch(3)) of the names of parameters that are not trained.
  TORCH_ARG(std::vector<std::string>, freeze);
  /// Steps in a row whose loss or gradient is not finite, after which the run gives up.
  TORCH_ARG(int64_t, max_skipped_steps) = 10;
  /// OPT alone (modules/opt_forward_options.h): memory for time.
  TORCH_ARG(bool, sequence_parallel) = false;
  TORCH_ARG(bool, activation_checkpointing) = false;
  /// Of dropout.
  TORCH_ARG(uint64_t, seed) = 0;

  /// Where the run is recorded: metrics.jsonl, tensorboard/, report.html and checkpoints/. Empty: nowhere.
  TORCH_ARG(std::filesystem::path, output);
  /// Go on from the newest checkpoint in `output`; with none there, start.
  TORCH_ARG(bool, resume) = false;
  /// Steps from one checkpoint to the next; the last step and a stop write one too. 0: a stop alone.
  TORCH_ARG(int64_t, save_every) = 0;
  /// Checkpoints that are kept; 0: all.
  TORCH_ARG(int64_t, keep_last) = 0;
  /// Steps from one evaluation to the next; the last step has one too. 0: the last step alone.
  TORCH_ARG(int64_t, eval_every) = 0;
  TORCH_ARG(RunDescription, description);
};

}  // namespace optp

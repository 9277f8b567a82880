// Trains a model on a mesh: any LibTorch model that is built of sharded layers, OPT among them.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"
#include "src/train/metrics.h"
#include "src/train/trainer_options.h"
#include "src/train/training_set.h"

namespace optp {

/// What a model is given to compute a loss: rows of one optimizer step, or of an evaluation.
struct TrainingBatch {
  at::Tensor input;           ///< [N, ..], rows of Examples::input
  at::Tensor target;          ///< [N, ..], rows of Examples::target
  int64_t step = 0;           ///< from 1; 0 in an evaluation
  int64_t first_example = 0;  ///< index of the first row in the batch of all copies: with seed and step, what random
                              ///< numbers for a row are to be keyed by (parallel/dropout.h)
};

/// The loss of a batch, *summed* over the elements of `target`, as a scalar that backward can start from. Called on all
/// ranks of a copy with the same batch. In an integer target, elements of -100 do not count, as in torch's
/// cross_entropy; the trainer divides by the number of those that do, of all copies and micro-batches together.
using LossFunction = std::function<at::Tensor(const TrainingBatch&)>;

/// Text that the model wrote, for the run's page.
struct TextSample {
  std::string prompt;
  std::string text;  ///< what the model continued it with; empty: nothing to show
};

struct TrainingResult {
  int64_t steps = 0;                ///< taken in the whole run, sessions before a resume included
  std::optional<StepMetrics> last;  ///< of the last step
  int stop_code = 0;                ///< what stopped the run before its end (Trainer::stop_when); 0: nothing
};

/// A run:
///
///     optp::Trainer trainer(model, optp::TrainerOptions().max_steps(1000).schedule(...).output("run"));
///     trainer.on_step([](const optp::StepMetrics& step) { ... });
///     trainer.fit(train, validation);
///
/// Every rank of the model's mesh makes the same calls. A step takes `batch_size` examples: copy d of the model takes
/// the d-th part of them, in micro-batches; gradients are added over both, clipped, and applied. A step whose loss or
/// gradient is not finite on any rank is taken by none; it is counted and recorded as skipped.
///
/// Errors that are the caller's to mend (options that contradict each other, an output folder of another run,
/// training data that changed since the checkpoint) are c10::ValueError, on all ranks alike.
class Trainer {
 public:
  /// Any model. `model` may hold whole parameters and modules that are a ShardedModule; after backward every gradient
  /// must be complete on its tensor-parallel rank, as the layers and mappings of parallel/ leave it. Weights are the
  /// caller's to fill, before or through load_weights().
  Trainer(std::shared_ptr<torch::nn::Module> model, LossFunction loss_sum, const Mesh& mesh, TrainerOptions options);

  /// OPT as a causal language model: input [N, T] ids, target [N, T] the ids that follow. Dropout as the model's
  /// configuration says.
  Trainer(OptForCausalLM model, const TrainerOptions& options);

  Trainer(Trainer&&) noexcept;
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;
  Trainer& operator=(Trainer&&) = delete;
  ~Trainer();

  /// Called on every rank, in the order in which they were added: when the output folder is this run's and nothing is
  /// trained yet; after each step (and its evaluation); when a checkpoint has been written. They may communicate.
  Trainer& on_start(std::function<void()> callback);
  Trainer& on_step(std::function<void(const StepMetrics&)> callback);
  Trainer& on_checkpoint(std::function<void(const std::filesystem::path&)> callback);

  /// Asked on every rank where an evaluation is due and when the run ends, with the model in evaluation mode. What rank
  /// 0 answers stands on the page.
  Trainer& sample_with(std::function<TextSample()> write);

  /// Asked on every rank once a step, and between the batches of an evaluation. The largest answer of any rank, if it
  /// is not 0, is what all of them stop for: after the step, with a checkpoint.
  Trainer& stop_when(std::function<int()> ask);

  /// `load` fills the parameters that it is given: the model's, and once more the float32 masters of those that are
  /// trained in lower precision.
  void load_weights(const std::function<void(const std::vector<NamedShard>&)>& load);

  /// The parameters in the precision in which they are trained.
  std::vector<NamedShard> weights() const;

  /// Steps that fit() would take in all. Throws as fit() does for options that do not fit the set.
  int64_t total_steps(const TrainingSet& train) const;

  /// Trains until the end or a stop. Collective.
  TrainingResult fit(const TrainingSet& train);
  /// The same, and measures the loss on `validation`.
  TrainingResult fit(const TrainingSet& train, const TrainingSet& validation);

  /// The mean loss over a set, in evaluation mode. Collective. Absent when it was stopped in between.
  std::optional<double> evaluate(const TrainingSet& set);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace optp

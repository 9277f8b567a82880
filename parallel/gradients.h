// The gradients of a model on a mesh: where they are kept, how the copies of the model add theirs up while backward
// still runs, and what they measure together.
//
// One optimizer step, on every rank of the mesh:
//
//   gradients.start_step();
//   for (int64_t m = 0; m < micro_batches; ++m) {
//     if (m + 1 == micro_batches) gradients.reduce_in_next_backward();
//     (loss_sum(m) / tokens_of_all_copies).backward();
//   }
//   const GradientTotals totals = gradients.finish();  // collective
//   if (totals.finite) {
//     gradients.clip(totals.norm, 1.0);
//     optimizer.step(lr);
//   }
//
// Gradients are added over the copies, not averaged: a loss divided by what all copies count together gives the
// gradient of one process that sees the whole batch.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"

namespace optp {

/// A parameter that is trained, and its gradient.
struct TrainedParameter {
  std::string name;
  at::Tensor parameter;  ///< the model's own
  ParameterShard shard;  ///< of the parameter, and so of its gradient and of optimizer state of its shape
  at::Tensor gradient;   ///< view of a buffer; float32 for bfloat16 and float16 parameters, else the parameter's dtype
  bool has_gradient = false;  ///< after finish(): backward reached it on some copy; where not, `gradient` is zeros
};

/// What all ranks agree on at the end of a step: the same bits on every one.
struct GradientTotals {
  double norm = 0;  ///< 2-norm of the whole model's gradient over all copies, before clipping
  /// Whether the norm and all sums are finite and every gradient on every rank is. If not, no rank may take the step.
  bool finite = true;
  std::vector<double> sums;  ///< what was handed to finish(), added over all ranks
};

/// Keeps the gradients of a model in a few contiguous buffers ("buckets"), where they stay from step to step.
///
/// Backward adds to the buffers: float32 and float64 parameters have their `.grad` there from the first gradient of a
/// step until start_step(); the gradient of a bfloat16 parameter is added in float32 and its `.grad` left undefined.
/// Buckets hold the parameters in reverse order of registration, which is nearly the order in which backward completes
/// them. A bucket is reduced over mesh.data() as soon as all of its gradients are complete and the buckets before it
/// are on their way, so all ranks reduce in the same order; the same mesh gives the same bits in every run.
///
/// How often backward reaches a parameter (more than once where a part of the model is computed again in backward) is
/// learned from the steps before, so the first step reduces after backward. A gradient that comes after its bucket has
/// left is reduced by itself in finish().
class Gradients {
 public:
  struct Options {
    /// A bucket is closed when the next parameter would make it larger.
    int64_t bucket_bytes = int64_t{25} << 20;
  };

  /// `parameters` are those of one model, as named_shards() gives them, on every rank of `mesh`. Those that do not
  /// require a gradient take no memory; a tensor that comes under two names counts once, under the first. The model's
  /// parameters must keep their memory and dtype from here on. Throws c10::ValueError when nothing is left to train or
  /// a parameter is not contiguous.
  Gradients(const std::vector<NamedShard>& parameters, const Mesh& mesh, const Options& options);
  Gradients(const std::vector<NamedShard>& parameters, const Mesh& mesh);
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;
  ~Gradients();

  /// Forgets the gradients of the last step.
  void start_step();

  /// The next backward is the step's last: buckets are reduced as they get complete.
  void reduce_in_next_backward();

  /// Completes the reduction and returns what all ranks agree on. Collective over mesh.world(). `sums`, of the same
  /// length on every rank, travel along and are added over all ranks; a number that the tensor-parallel ranks of a copy
  /// share (such as the loss) is to be passed by one of them, with 0 on the others.
  GradientTotals finish(at::ArrayRef<double> sums = {});

  /// Scales all gradients by min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_, and returns that
  /// factor. `norm` is the finite one of finish(), so every rank scales alike.
  double clip(double norm, double max_norm);

  /// In the order of registration.
  const std::vector<TrainedParameter>& parameters() const;

  /// Bytes of the buffers.
  int64_t bytes() const;
  /// How many buffers there are: a step reduces each once.
  int64_t buckets() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace optp

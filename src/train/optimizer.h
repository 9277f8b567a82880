// AdamW, Adam, SGD and RMSprop as in torch.optim, over the shards that this rank trains.
#pragma once

#include <torch/arg.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/gradients.h"
#include "parallel/parameter_shard.h"

namespace optp {

enum class OptimizerKind { adamw, adam, sgd, rmsprop };

/// "adamw", "adam", "sgd" or "rmsprop". Throws c10::ValueError that lists them.
OptimizerKind parse_optimizer(std::string_view name);
std::string_view optimizer_name(OptimizerKind kind);

/// Names and defaults of torch.optim.
struct OptimizerOptions {
  // NOLINTNEXTLINE(google-explicit-constructor): as torch::optim and torch::nn options
  OptimizerOptions(OptimizerKind kind = OptimizerKind::adamw) : kind_(kind) {}

  TORCH_ARG(OptimizerKind, kind);
  TORCH_ARG(double, beta1) = 0.9;    ///< adamw, adam
  TORCH_ARG(double, beta2) = 0.999;  ///< adamw, adam
  TORCH_ARG(double, eps) = 1e-8;     ///< adamw, adam, rmsprop
  /// adamw: decoupled, default 0.01; the others: added to the gradient (L2), default 0.
  TORCH_ARG(std::optional<double>, weight_decay) = std::nullopt;
  TORCH_ARG(double, momentum) = 0;    ///< sgd, rmsprop
  TORCH_ARG(bool, nesterov) = false;  ///< sgd; needs momentum
  TORCH_ARG(double, alpha) = 0.99;    ///< rmsprop
  TORCH_ARG(bool, centered) = false;  ///< rmsprop
  /// No decay for biases and norms: whatever has one dimension.
  TORCH_ARG(bool, no_decay_bias) = false;

 public:
  /// The learning rate that torch.optim uses when none is given.
  double default_lr() const;
  /// `weight_decay`, or the kind's default.
  double decay() const;
  /// Throws c10::ValueError that names the first value which is outside its range, or set for a kind without it (of
  /// betas, eps and alpha, which have defaults, that is not known: they are ignored).
  void validate() const;
};

/// Updates parameters from the gradients in a Gradients object. It equals torch.optim's class of that name run on the
/// whole model, shard by shard: every update is by element.
///
/// Parameters of lower precision than their gradient (bfloat16) get float32 master weights, taken from the parameter
/// when the optimizer is made: updates go to the master, whose rounded copy is the parameter. State is as precise as
/// the gradient. As in torch.optim, a parameter that backward did not reach (`has_gradient` false) is left alone: no
/// decay, no state, no count.
///
/// All memory is taken when the optimizer is made. Nothing communicates.
class Optimizer {
 public:
  /// `gradients` must outlive the optimizer. Weights are to be loaded before, or through master_parameters().
  Optimizer(Gradients& gradients, const OptimizerOptions& options);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  ~Optimizer();

  /// One update of every parameter, between gradients.finish() and gradients.start_step().
  void step(double lr);

  /// What a checkpoint must hold beside the parameters, as tensors to read from or to load into: "<state>/<parameter>"
  /// with the parameter's shard. States: exp_avg, exp_avg_sq (adamw, adam), momentum_buffer (sgd and rmsprop with
  /// momentum), square_avg (rmsprop), grad_avg (rmsprop, centered), master (bfloat16 parameters); and step (adamw,
  /// adam), of shape [], float32, whole on every rank.
  std::vector<NamedShard> state() const;

  /// The trained parameters under their own names in the precision in which they are updated: the master where there is
  /// one, else the parameter itself. After loading into it call copy_masters().
  std::vector<NamedShard> master_parameters() const;
  /// Rounds the masters into the parameters.
  void copy_masters();

  const OptimizerOptions& options() const;
  /// Bytes of the state and the masters.
  int64_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace optp

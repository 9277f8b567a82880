#include "src/train/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>

#include <utility>

#include "src/train/rmsprop.h"

namespace optp {
namespace {

// State tensors of the parameter's shape, by torch.optim's names.
std::vector<std::string> state_names(const OptimizerOptions& options) {
  std::vector<std::string> names;
  switch (options.kind()) {
    case OptimizerKind::adamw:
    case OptimizerKind::adam:
      return {"exp_avg", "exp_avg_sq"};
    case OptimizerKind::rmsprop:
      names.emplace_back("square_avg");
      if (options.centered()) names.emplace_back("grad_avg");
      [[fallthrough]];
    case OptimizerKind::sgd:
      if (options.momentum() > 0) names.emplace_back("momentum_buffer");
  }
  return names;
}

}  // namespace

struct Optimizer::State {
  // What is kept of one parameter.
  struct Slot {
    at::Tensor master;                // the parameter itself where that is precise enough
    std::vector<at::Tensor> moments;  // in the order of state_names()
    at::Tensor step;                  // [] float32; adamw and adam only
    bool decays = true;
  };

  // The tensors of one call over all parameters: place i of every list belongs to the same parameter.
  struct Lists {
    std::vector<at::Tensor> parameters, gradients, steps;
    std::vector<std::vector<at::Tensor>> moments;

    void clear() {
      parameters.clear();
      gradients.clear();
      steps.clear();
      for (auto& list : moments) list.clear();
    }
  };

  State(Gradients& step_gradients, const OptimizerOptions& step_options);

  void update(double lr, double weight_decay);

  Gradients& gradients;
  OptimizerOptions options;
  std::vector<std::string> names;
  std::vector<Slot> slots;  // of the parameter with the same index
  Lists lists;              // kept, so that a step takes no memory
};

Optimizer::State::State(Gradients& step_gradients, const OptimizerOptions& step_options)
    : gradients(step_gradients), options(step_options), names(state_names(step_options)) {
  lists.moments.resize(names.size());
  const bool counts = options.kind() == OptimizerKind::adamw || options.kind() == OptimizerKind::adam;
  for (const TrainedParameter& entry : gradients.parameters()) {
    Slot& slot = slots.emplace_back();
    slot.master = entry.parameter.detach().to(entry.gradient.scalar_type());
    for (size_t i = 0; i < names.size(); ++i) slot.moments.push_back(at::zeros_like(slot.master));
    if (counts) slot.step = at::zeros({}, slot.master.options().dtype(at::kFloat));
    slot.decays = !options.no_decay_bias() || entry.shard.shape.size() > 1;
  }
}

// Updates the parameters in `lists`.
void Optimizer::State::update(double lr, double weight_decay) {
  if (lists.parameters.empty()) return;
  for (const at::Tensor& step : lists.steps) *step.mutable_data_ptr<float>() += 1;
  const auto& moments = lists.moments;
  switch (options.kind()) {
    case OptimizerKind::adamw:
      return at::_fused_adamw_(lists.parameters, lists.gradients, moments[0], moments[1], {}, lists.steps, lr,
                               options.beta1(), options.beta2(), weight_decay, options.eps(), /*amsgrad=*/false,
                               /*maximize=*/false);
    case OptimizerKind::adam:
      return at::_fused_adam_(lists.parameters, lists.gradients, moments[0], moments[1], {}, lists.steps, lr,
                              options.beta1(), options.beta2(), weight_decay, options.eps(), /*amsgrad=*/false,
                              /*maximize=*/false);
    case OptimizerKind::sgd:
      // torch's first step copies the gradient into the momentum buffer; 0 * momentum + gradient is the same.
      return at::_fused_sgd_(lists.parameters, lists.gradients, moments.empty() ? at::TensorList() : moments[0],
                             weight_decay, options.momentum(), lr, /*dampening=*/0, options.nesterov(),
                             /*maximize=*/false, /*is_first_step=*/false);
    case OptimizerKind::rmsprop:
      for (size_t i = 0; i < lists.parameters.size(); ++i) {
        const size_t buffer = options.centered() ? 2 : 1;
        rmsprop_step_(lists.parameters[i], lists.gradients[i], moments[0][i],
                      options.centered() ? moments[1][i] : at::Tensor(),
                      options.momentum() > 0 ? moments[buffer][i] : at::Tensor(),
                      {.lr = lr,
                       .alpha = options.alpha(),
                       .eps = options.eps(),
                       .weight_decay = weight_decay,
                       .momentum = options.momentum()});
      }
  }
}

Optimizer::Optimizer(Gradients& gradients, const OptimizerOptions& options) {
  options.validate();
  state_ = std::make_unique<State>(gradients, options);
}

Optimizer::~Optimizer() = default;

void Optimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  const auto& parameters = state.gradients.parameters();
  for (const bool decays : {true, false}) {
    state.lists.clear();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const State::Slot& slot = state.slots[i];
      if (slot.decays != decays || !parameters[i].has_gradient) continue;
      state.lists.parameters.push_back(slot.master);
      state.lists.gradients.push_back(parameters[i].gradient);
      for (size_t m = 0; m < slot.moments.size(); ++m) state.lists.moments[m].push_back(slot.moments[m]);
      if (slot.step.defined()) state.lists.steps.push_back(slot.step);
    }
    state.update(lr, decays ? state.options.decay() : 0);
  }
  copy_masters();
}

std::vector<NamedShard> Optimizer::state() const {
  std::vector<NamedShard> all;
  for (size_t i = 0; i < state_->slots.size(); ++i) {
    const TrainedParameter& entry = state_->gradients.parameters()[i];
    const State::Slot& slot = state_->slots[i];
    for (size_t m = 0; m < slot.moments.size(); ++m) {
      all.push_back({state_->names[m] + "/" + entry.name, slot.moments[m], entry.shard});
    }
    if (slot.step.defined()) all.push_back({"step/" + entry.name, slot.step, {}});
    if (!slot.master.is_alias_of(entry.parameter)) all.push_back({"master/" + entry.name, slot.master, entry.shard});
  }
  return all;
}

std::vector<NamedShard> Optimizer::master_parameters() const {
  std::vector<NamedShard> all;
  for (size_t i = 0; i < state_->slots.size(); ++i) {
    const TrainedParameter& entry = state_->gradients.parameters()[i];
    all.push_back({entry.name, state_->slots[i].master, entry.shard});
  }
  return all;
}

void Optimizer::copy_masters() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < state_->slots.size(); ++i) {
    const at::Tensor& parameter = state_->gradients.parameters()[i].parameter;
    if (!state_->slots[i].master.is_alias_of(parameter)) parameter.copy_(state_->slots[i].master);
  }
}

const OptimizerOptions& Optimizer::options() const { return state_->options; }

int64_t Optimizer::bytes() const {
  int64_t total = 0;
  for (const NamedShard& entry : state()) total += static_cast<int64_t>(entry.tensor.nbytes());
  return total;
}

}  // namespace optp

#include "src/train/trainer.h"

#include <algorithm>
#include <utility>

#include "parallel/random.h"
#include "src/train/evaluation.h"
#include "src/train/freeze.h"
#include "src/train/training_run.h"

namespace optp {
namespace {

LossFunction opt_loss(OptForCausalLM model, const TrainerOptions& trainer) {
  const bool drops = model->config().dropout() > 0 || model->config().attention_dropout() > 0;
  const RandomKey key = RandomKey(trainer.seed()).with("dropout");
  const OptForwardOptions switches{.sequence_parallel = trainer.sequence_parallel(),
                                   .activation_checkpointing = trainer.activation_checkpointing()};
  return [model = std::move(model), drops, key, switches](const TrainingBatch& batch) mutable {
    OptForwardOptions options = switches;
    options.targets = batch.target;
    if (drops && batch.step > 0) {
      options.dropout = DropoutSource{.key = key.with(batch.step), .first_sequence = batch.first_example};
    }
    return model->forward(batch.input, options).loss_sum;
  };
}

void check_options(const TrainerOptions& options) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    TORCH_CHECK_VALUE(value >= least, name, " is ", value, "; use ", least, " or more.");
  };
  at_least("the batch size", options.batch_size(), 1);
  at_least("the micro-batch size", options.micro_batch_size(), 0);
  at_least("the number of epochs", options.epochs(), 1);
  at_least("the number of steps", options.max_steps(), 0);
  at_least("the number of skipped steps to bear (--max-skipped-steps)", options.max_skipped_steps(), 1);
  at_least("the interval of checkpoints", options.save_every(), 0);
  at_least("the interval of evaluations", options.eval_every(), 0);
  at_least("the number of checkpoints to keep", options.keep_last(), 0);
  TORCH_CHECK_VALUE(options.grad_clip() >= 0, "the largest gradient norm is ", options.grad_clip(),
                    "; use a positive number, or 0 for no clipping.");
  TORCH_CHECK_VALUE(!options.resume() || !options.output().empty(),
                    "a run without an output folder cannot be resumed.");
}

}  // namespace

struct Trainer::State : TrainingSetup {};

Trainer::Trainer(std::shared_ptr<torch::nn::Module> model, LossFunction loss_sum, const Mesh& mesh,
                 TrainerOptions options)
    : state_(std::make_unique<State>()) {
  check_options(options);
  State& state = *state_;
  state.module = std::move(model);
  state.loss_sum = std::move(loss_sum);
  state.mesh = mesh;
  state.options = std::move(options);
  state.parameters = named_shards(*state.module);
  freeze_parameters(state.parameters, state.options.freeze());
  state.gradients = std::make_unique<Gradients>(state.parameters, mesh);
  state.optimizer = std::make_unique<Optimizer>(*state.gradients, state.options.optimizer());
}

Trainer::Trainer(OptForCausalLM model, const TrainerOptions& options)
    : Trainer(model.ptr(), opt_loss(model, options), model->mesh(), options) {
  state_->model_config = model->config().to_json();
}

Trainer::Trainer(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

Trainer& Trainer::on_start(std::function<void()> callback) {
  state_->start_callbacks.push_back(std::move(callback));
  return *this;
}

Trainer& Trainer::on_step(std::function<void(const StepMetrics&)> callback) {
  state_->step_callbacks.push_back(std::move(callback));
  return *this;
}

Trainer& Trainer::on_checkpoint(std::function<void(const std::filesystem::path&)> callback) {
  state_->checkpoint_callbacks.push_back(std::move(callback));
  return *this;
}

Trainer& Trainer::sample_with(std::function<TextSample()> write) {
  state_->write_sample = std::move(write);
  return *this;
}

Trainer& Trainer::stop_when(std::function<int()> ask) {
  state_->stop_request = std::move(ask);
  return *this;
}

void Trainer::load_weights(const std::function<void(const std::vector<NamedShard>&)>& load) {
  load(state_->parameters);
  const std::vector<NamedShard> masters = state_->optimizer->master_parameters();
  const bool distinct = std::any_of(masters.begin(), masters.end(), [&](const NamedShard& master) {
    return master.tensor.scalar_type() != state_->parameters.front().tensor.scalar_type();
  });
  if (!distinct) return;
  load(weights());
  state_->optimizer->copy_masters();
}

std::vector<NamedShard> Trainer::weights() const {
  std::vector<NamedShard> weights = state_->parameters;
  for (const NamedShard& master : state_->optimizer->master_parameters()) {
    const auto same_name = [&](const NamedShard& weight) { return weight.name == master.name; };
    *std::find_if(weights.begin(), weights.end(), same_name) = master;
  }
  return weights;
}

int64_t Trainer::total_steps(const TrainingSet& train) const {
  return run_length(state_->options, state_->mesh, train).total_steps;
}

TrainingResult Trainer::fit(const TrainingSet& train) { return TrainingRun(*state_, train, nullptr).run(); }

TrainingResult Trainer::fit(const TrainingSet& train, const TrainingSet& validation) {
  return TrainingRun(*state_, train, &validation).run();
}

std::optional<double> Trainer::evaluate(const TrainingSet& set) {
  return mean_loss(*state_->module, state_->loss_sum, set, state_->mesh, state_->rows(),
                   [&] { return state_->agreed_stop() != 0; });
}

}  // namespace optp

#include "src/train/training_run.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>

#include "parallel/agreement.h"
#include "parallel/shard.h"
#include "src/checkpoint/training_checkpoint.h"
#include "src/log.h"
#include "src/train/evaluation.h"
#include "src/train/model_identity.h"

namespace optp {
namespace {

Schedule schedule_of(ScheduleOptions options, int64_t total_steps) {
  return Schedule(options.total_steps(total_steps));
}

// What must be the same when a run is resumed.
RunIdentity identity_of(const TrainerOptions& options, const TrainingSet& train) {
  std::string frozen;
  for (const std::string& pattern : options.freeze()) frozen += (frozen.empty() ? "" : " ") + pattern;
  return {{"batch size", std::to_string(options.batch_size())},
          {"seed", std::to_string(options.seed())},
          {"optimizer", std::string(optimizer_name(options.optimizer().kind()))},
          {"list of frozen parameters", frozen.empty() ? "empty" : frozen},
          {"training data", train.fingerprint()}};
}

}  // namespace

int TrainingSetup::agreed_stop() const {
  at::Tensor code = at::scalar_tensor(stop_request(), at::kInt);
  mesh.world().all_reduce_(code, "stop request", c10d::ReduceOp::RedOpType::MAX);
  return code.item<int>();
}

int64_t TrainingSetup::rows() const {
  const int64_t part = ShardLayout(options.batch_size(), mesh.data().size()).largest();
  return options.micro_batch_size() == 0 ? part : std::min(part, options.micro_batch_size());
}

RunLength run_length(const TrainerOptions& options, const Mesh& mesh, const TrainingSet& train) {
  const int64_t batch = options.batch_size();
  TORCH_CHECK_VALUE(batch >= mesh.data().size(), "a batch of ", batch, " cannot be shared by ", mesh.data().size(),
                    " copies of the model; use a larger batch or fewer copies.");
  TORCH_CHECK_VALUE(train.size() >= batch, "the training data holds ", train.size(),
                    " sequences, fewer than a batch of ", batch,
                    "; use more data, a smaller batch or shorter sequences.");
  RunLength length{.steps_per_epoch = train.size() / batch};
  length.total_steps = options.max_steps() > 0 ? options.max_steps() : options.epochs() * length.steps_per_epoch;
  return length;
}

TrainingRun::TrainingRun(TrainingSetup& setup, const TrainingSet& train, const TrainingSet* validation)
    : setup_(setup),
      train_(train),
      validation_(validation),
      length_(run_length(setup.options, setup.mesh, train)),
      schedule_(schedule_of(setup.options.schedule(), length_.total_steps)),
      step_(setup.loss_sum, setup.mesh, *setup.gradients, *setup.optimizer, setup.rows(), setup.options.grad_clip()),
      folder_(setup.options.output()) {
  TORCH_CHECK_VALUE(validation == nullptr || validation->size() > 0,
                    "the validation data holds no whole sequence; use more of it, or a smaller --seq-len.");
}

TrainingResult TrainingRun::run() {
  begin();
  while (state_.step < length_.total_steps && stop_code_ == 0) conclude_step(take_step());

  const bool finished = state_.step >= length_.total_steps && !state_.to_evaluate;
  if (finished) stop_code_ = 0;
  if (!finished) save();
  if (finished) sample();
  if (recorder_) {
    recorder_->write_report(finished ? TrainingState::finished : TrainingState::stopped,
                            finished ? "" : "Stopped on request; --resume goes on.", seconds());
  }
  return {.steps = state_.step, .last = last_, .stop_code = stop_code_};
}

void TrainingRun::begin() {
  setup_.module->train();
  const TrainerOptions& options = setup_.options;
  state_.identity = identity_of(options, train_);
  if (!options.output().empty()) open_output();
  for (const auto& callback : setup_.start_callbacks) callback();
  if (state_.to_evaluate) conclude_step(*std::exchange(state_.to_evaluate, std::nullopt));
}

// Makes the folder ready, and goes to where a run that is resumed was.
void TrainingRun::open_output() {
  const TrainerOptions& options = setup_.options;
  const ProcessGroup& world = setup_.mesh.world();
  const bool recording = world.rank() == 0;
  run_on_all(world, "output folder", [&] {
    if (recording) folder_.prepare(options.resume());
  });
  if (options.resume()) {
    const auto checkpoint = folder_.newest_checkpoint();
    if (checkpoint) load(*checkpoint);
  }
  const int64_t recorded = state_.to_evaluate ? state_.step - 1 : state_.step;
  run_on_all(world, "records", [&] {
    if (!recording) return;
    recorder_.emplace(folder_, recorded, length_.total_steps, options.description());
    recorder_->write_report(TrainingState::running, "", seconds());
    last_ = recorder_->last();
  });
}

void TrainingRun::load(const std::filesystem::path& path) {
  const TrainingCheckpoint checkpoint(path, setup_.mesh);
  check_model(setup_.model_config, checkpoint.model_config(), path.string());
  TrainerState before = trainer_state_from_json(checkpoint.trainer_state(), path.string());
  check_identity(state_.identity, before.identity, path.string());
  TORCH_CHECK_VALUE(before.step <= length_.total_steps, path.string(), " has taken ", before.step,
                    " steps, more than the ", length_.total_steps,
                    " of this run; give a larger --max-steps or --epochs.");
  checkpoint.load_parameters(setup_.parameters);
  checkpoint.load_optimizer_state(setup_.optimizer->state());
  before.identity = state_.identity;
  state_ = std::move(before);
  saved_step_ = state_.step;
  log_line(LogLevel::info, c10::str("resuming after step ", state_.step, " from ", path.string()));
}

StepMetrics TrainingRun::take_step() {
  RECORD_USER_SCOPE(c10::str("step/step ", state_.step + 1));
  setup_.mesh.watch().set_progress(c10::str("step ", state_.step + 1));
  const auto begin = std::chrono::steady_clock::now();
  const double waited = setup_.mesh.communication_seconds();
  const int64_t batch = setup_.options.batch_size();
  const int64_t epoch = state_.step / length_.steps_per_epoch;
  const int64_t first = state_.step % length_.steps_per_epoch * batch;
  const Range part = ShardLayout(batch, setup_.mesh.data().size()).range(setup_.mesh.data().rank());
  StepMetrics metrics{.step = state_.step + 1, .lr = schedule_.lr(state_.step)};
  const auto read = [&] {
    RECORD_USER_SCOPE("data/read a batch");
    return train_.read(epoch, first + part.start, part.size);
  };
  const StepOutcome outcome = step_.run(read(), metrics.step, part.start, metrics.lr, setup_.stop_request());

  stop_code_ = outcome.stop_code;
  state_.step = metrics.step;
  state_.tokens += outcome.targets;
  state_.skipped_steps += outcome.skipped ? 1 : 0;
  state_.skipped_in_a_row = outcome.skipped ? state_.skipped_in_a_row + 1 : 0;
  metrics.loss = outcome.loss;
  metrics.grad_norm = outcome.grad_norm;
  metrics.skipped = outcome.skipped;
  metrics.tokens = state_.tokens;
  metrics.peak_rss_bytes = outcome.peak_rss_bytes;
  metrics.step_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  metrics.tokens_per_second = static_cast<double>(outcome.targets) / metrics.step_seconds;
  metrics.comm_seconds = setup_.mesh.communication_seconds() - waited;
  return metrics;
}

// What follows a step: its evaluation, its record, its checkpoint.
void TrainingRun::conclude_step(StepMetrics metrics) {
  const bool evaluation_due = validation_ != nullptr && due(setup_.options.eval_every());
  if (evaluation_due && stop_code_ == 0) metrics.val_loss = evaluate();
  if (evaluation_due && !metrics.val_loss) state_.to_evaluate = metrics;
  if (due(setup_.options.eval_every()) && stop_code_ == 0) sample();
  last_ = metrics;
  if (recorder_) recorder_->record(metrics);
  for (const auto& callback : setup_.step_callbacks) callback(metrics);
  if (metrics.skipped) {
    log_line(LogLevel::warn, c10::str("step ", metrics.step, " was skipped: the loss or a gradient was not finite (",
                                      state_.skipped_in_a_row, " in a row)"));
  }
  if (state_.skipped_in_a_row >= setup_.options.max_skipped_steps()) give_up_after_skips();
  if (setup_.options.save_every() > 0 && due(setup_.options.save_every())) save();
  if (recorder_) recorder_->refresh_report(seconds());
}

std::optional<double> TrainingRun::evaluate() {
  RECORD_USER_SCOPE("evaluation/validation loss");
  setup_.mesh.watch().set_progress(c10::str("validation after step ", state_.step));
  return mean_loss(*setup_.module, setup_.loss_sum, *validation_, setup_.mesh, setup_.rows(), [&] {
    stop_code_ = std::max(stop_code_, setup_.agreed_stop());
    return stop_code_ != 0;
  });
}

void TrainingRun::sample() {
  if (!setup_.write_sample || setup_.options.output().empty() || sampled_step_ == state_.step) return;
  setup_.module->eval();
  const TextSample sample = setup_.write_sample();
  setup_.module->train();
  sampled_step_ = state_.step;
  if (recorder_) recorder_->show_sample(sample.prompt, sample.text);
}

void TrainingRun::save() {
  if (setup_.options.output().empty() || saved_step_ == state_.step) return;
  state_.seconds = seconds();
  begin_ = std::chrono::steady_clock::now();
  const std::filesystem::path path = folder_.checkpoints() / checkpoint_name(state_.step);
  setup_.mesh.watch().set_progress(c10::str("the checkpoint of step ", state_.step));
  write_training_checkpoint(path,
                            {.model_config = setup_.model_config,
                             .parameters = setup_.parameters,
                             .optimizer_state = setup_.optimizer->state(),
                             .trainer_state = to_json(state_)},
                            setup_.mesh);
  saved_step_ = state_.step;
  if (setup_.options.keep_last() > 0) {
    run_on_all(setup_.mesh.world(), "old checkpoints", [&] {
      if (recorder_) remove_old_checkpoints(folder_.checkpoints(), setup_.options.keep_last());
    });
  }
  for (const auto& callback : setup_.checkpoint_callbacks) callback(path);
}

void TrainingRun::give_up_after_skips() {
  const std::string message =
      c10::str("the loss or a gradient was not finite in ", state_.skipped_in_a_row, " steps in a row, up to step ",
               state_.step, ": training has diverged; lower --lr, raise --warmup-steps, or look at the data.");
  if (recorder_) recorder_->write_report(TrainingState::stopped, message, seconds());
  TORCH_CHECK(false, message);
}

// Whether something that is done every `every` steps is done now; the last step always counts.
bool TrainingRun::due(int64_t every) const {
  return state_.step == length_.total_steps || (every > 0 && state_.step % every == 0);
}

double TrainingRun::seconds() const {
  return state_.seconds + std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

}  // namespace optp

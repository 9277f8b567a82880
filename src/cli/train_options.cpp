#include "src/cli/train_options.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <sstream>
#include <utility>

#include "src/cli/number_checks.h"
#include "src/cli/texts_option.h"
#include "src/train/recipe.h"

namespace optp::cli {
namespace {

// Spread of the fresh weights of the published models; the recipes of src/train/recipe.h begin there.
constexpr double kPublishedInitStd = 0.006;

std::string shortest(double value) {
  std::ostringstream text;
  text.precision(15);
  text << value;
  return text.str();
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes()) names.push_back(recipe.name);
  return names;
}

void add_data_options(CLI::App& command, TrainArguments& arguments) {
  const char* group = "Data";
  add_texts_option(command, "--train-data", arguments.train_data, ".txt, or .npy as `optp tokenize` writes them")
      ->required()
      ->type_name("FILE ...")
      ->group(group);
  add_texts_option(command, "--val-data", arguments.val_data, "The same, to measure on")
      ->type_name("FILE ...")
      ->group(group);
  command.add_option("--val-split", arguments.val_split, "In place of --val-data: the last part of the training data")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--tokenizer", arguments.tokenizer,
                  "Folder with vocab.json and merges.txt, or bytes (default: the model's own, else bytes)")
      ->group(group);
  command.add_option("--seq-len", arguments.seq_len, "Tokens of a sequence (default: 512, or the model's positions)")
      ->check(kPositive)
      ->group(group);
  command.add_flag("--no-shuffle", arguments.no_shuffle, "Sequences in file order")->group(group);
}

void add_run_options(CLI::App& command, TrainArguments& arguments) {
  const char* group = "Run";
  command.add_option("--output", arguments.output, "Folder of the run")->required()->group(group);
  command.add_flag("--resume", arguments.resume, "Go on from the newest checkpoint in --output; with none, start")
      ->group(group);
  const auto steps = [&](const std::string& name, int64_t& value, const std::string& text) {
    command.add_option(name, value, text)->check(kNonNegative)->capture_default_str()->group(group);
  };
  command.add_option("--epochs", arguments.epochs, "Passes over the data (default: 1)")->check(kPositive)->group(group);
  command.add_option("--max-steps", arguments.max_steps, "Optimizer steps, in place of --epochs")
      ->check(kPositive)
      ->group(group);
  steps("--save-every", arguments.save_every, "Steps from one checkpoint to the next; 0: only when stopped");
  steps("--eval-every", arguments.eval_every, "Steps from one evaluation to the next; 0: only at the end");
  steps("--log-every", arguments.log_every, "Steps from one printed line to the next; 0: none");
  command
      .add_option("--profile", arguments.profile,
                  "File for a trace of every rank, for ui.perfetto.dev or chrome://tracing; choose few steps")
      ->group(group);
  steps("--sample-tokens", arguments.sample_tokens, "Tokens that the model writes for the page; 0: none");
  steps("--keep-last", arguments.keep_last, "Newest checkpoints to keep; 0: all");
  command
      .add_option("--max-skipped-steps", arguments.max_skipped_steps,
                  "Steps in a row without finite loss and gradient, after which the run gives up")
      ->check(kPositive)
      ->capture_default_str()
      ->group(group);
  command.add_flag("--verify-first", arguments.verify_first, "Verify this very run on its first batch, then train")
      ->group(group);
}

void add_batch_options(CLI::App& command, TrainArguments& arguments) {
  const char* group = "Batch and memory";
  command.add_option("--batch-size", arguments.batch_size, "Sequences in an optimizer step, over all copies")
      ->check(kPositive)
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--micro-batch-size", arguments.micro_batch_size,
                  "Sequences that a copy takes at once (default: its whole part of the batch)")
      ->check(kNonNegative)
      ->group(group);
  command
      .add_flag("--activation-checkpointing", arguments.activation_checkpointing,
                "Keep the inputs of layers only, and compute the rest again in backward")
      ->group(group);
  command
      .add_flag("--sequence-parallel", arguments.sequence_parallel,
                "Share layer norms and dropout by tokens over the tensor-parallel ranks")
      ->group(group);
}

void add_optimizer_options(CLI::App& command, TrainArguments& arguments) {
  const char* group = "Optimizer";
  const auto number = [&](const std::string& name, double& value, const std::string& text) {
    command.add_option(name, value, text)->check(kNonNegative)->capture_default_str()->group(group);
  };
  command.add_option("--recipe", arguments.recipe, "How a published model was trained; other options change it")
      ->check(CLI::IsMember(recipe_names()))
      ->type_name("MODEL")
      ->group(group);
  command.add_option("--optimizer", arguments.optimizer, "adamw, adam, sgd or rmsprop, with PyTorch's defaults")
      ->check(CLI::IsMember({"adamw", "adam", "sgd", "rmsprop"}))
      ->type_name("KIND")
      ->capture_default_str()
      ->group(group);
  command.add_option("--lr", arguments.lr, "Largest learning rate (default: the optimizer's)")
      ->check(kNonNegative)
      ->group(group);
  command.add_option("--betas", arguments.betas, "adamw, adam: B1,B2")
      ->delimiter(',')
      ->expected(2)
      ->default_str("0.9,0.999")
      ->group(group);
  number("--eps", arguments.eps, "adamw, adam, rmsprop");
  command.add_option("--weight-decay", arguments.weight_decay, "Default: 0.01 with adamw, else 0")
      ->check(kNonNegative)
      ->group(group);
  command.add_flag("--no-decay-bias", arguments.no_decay_bias, "No decay for biases and norms")->group(group);
  number("--momentum", arguments.momentum, "sgd, rmsprop");
  command.add_flag("--nesterov", arguments.nesterov, "sgd")->group(group);
  number("--alpha", arguments.alpha, "rmsprop");
  command.add_flag("--centered", arguments.centered, "rmsprop")->group(group);
  number("--grad-clip", arguments.grad_clip, "Largest global norm of the gradient; 0: off");
  command.add_option("--lr-schedule", arguments.lr_schedule, "constant, linear, cosine or polynomial")
      ->check(CLI::IsMember({"constant", "linear", "cosine", "polynomial"}))
      ->type_name("KIND")
      ->capture_default_str()
      ->group(group);
  command.add_option("--warmup-steps", arguments.warmup_steps, "Steps in which the learning rate rises")
      ->check(kNonNegative)
      ->capture_default_str()
      ->group(group);
  number("--min-lr", arguments.min_lr, "Where the schedule ends");
  number("--lr-power", arguments.lr_power, "polynomial");
}

void add_model_options(CLI::App& command, TrainArguments& arguments) {
  const char* group = "Model";
  const auto share = CLI::Range(0.0, 0.999);
  command.add_option("--dropout", arguments.dropout, "Default: the model's; 0 alone turns off both")
      ->check(share)
      ->group(group);
  command.add_option("--attention-dropout", arguments.attention_dropout, "Default: the model's")
      ->check(share)
      ->group(group);
  command.add_option("--init-std", arguments.init_std, "Spread of fresh weights (default: the preset's)")
      ->check(kPositive)
      ->group(group);
  add_texts_option(command, "--freeze", arguments.freeze, "Parameters that are not trained: \"model.decoder.embed_*\"")
      ->type_name("PATTERN ...")
      ->group(group);
}

}  // namespace

void add_train_options(CLI::App& command, TrainArguments& arguments) {
  add_common_options(command, arguments.common, {"float32", "bfloat16", "float64"});
  add_dp_option(command, arguments.common);
  add_data_options(command, arguments);
  add_run_options(command, arguments);
  add_batch_options(command, arguments);
  add_optimizer_options(command, arguments);
  add_model_options(command, arguments);
}

void apply_recipe(CLI::App& command, const TrainArguments& arguments) {
  if (arguments.recipe.empty()) return;
  const Recipe& recipe = find_recipe(arguments.recipe);
  std::vector<std::pair<std::string, std::vector<std::string>>> values = {
      {"--optimizer", {"adamw"}},
      {"--lr", {shortest(recipe.lr)}},
      {"--betas", {shortest(recipe.beta1), shortest(recipe.beta2)}},
      {"--eps", {shortest(recipe.eps)}},
      {"--weight-decay", {shortest(recipe.weight_decay)}},
      {"--grad-clip", {shortest(recipe.grad_clip)}},
      {"--lr-schedule", {"linear"}},
      {"--min-lr", {shortest(recipe.lr * recipe.min_lr_ratio)}},
      {"--warmup-steps", {std::to_string(recipe.warmup_steps())}},
      {"--batch-size", {std::to_string(recipe.batch_size())}},
      {"--seq-len", {std::to_string(recipe.sequence_length)}},
      {"--dropout", {shortest(recipe.dropout)}},
      {"--attention-dropout", {shortest(recipe.attention_dropout)}}};
  if (!find_model(arguments.common.model).path) values.push_back({"--init-std", {shortest(kPublishedInitStd)}});
  if (!arguments.epochs) values.push_back({"--max-steps", {std::to_string(recipe.total_steps())}});
  for (const auto& [name, texts] : values) {
    CLI::Option* option = command.get_option(name);
    if (option->count() > 0) continue;
    for (const std::string& text : texts) option->add_result(text);
    option->run_callback();
  }
}

ModelSource trained_model(const TrainArguments& arguments) {
  ModelSource source = model_of(arguments.common);
  if (arguments.dropout) {
    source.config.dropout(*arguments.dropout);
    if (*arguments.dropout == 0) source.config.attention_dropout(0);
  }
  if (arguments.attention_dropout) source.config.attention_dropout(*arguments.attention_dropout);
  TORCH_CHECK_VALUE(!arguments.init_std || !source.path, "--init-std is for fresh weights, but --model ",
                    arguments.common.model, " brings its own; leave it out.");
  if (arguments.init_std) source.config.init_std(*arguments.init_std);
  return source;
}

int64_t sequence_length(const TrainArguments& arguments, const OptConfig& config) {
  const int64_t positions = config.max_position_embeddings();
  const int64_t length = arguments.seq_len.value_or(std::min<int64_t>(512, positions));
  TORCH_CHECK_VALUE(length <= positions, "--seq-len ", length, " exceeds the model's ", positions,
                    " positions; use at most those.");
  return length;
}

TrainerOptions trainer_options(const TrainArguments& arguments) {
  TORCH_CHECK_VALUE(!arguments.epochs || !arguments.max_steps, "--epochs ", arguments.epochs.value_or(0),
                    " and --max-steps ", arguments.max_steps.value_or(0),
                    " both say how long to train; give one of them.");
  TORCH_CHECK_VALUE(arguments.val_data.empty() || arguments.val_split == 0,
                    "--val-data and --val-split both say what to measure on; give one of them.");
  OptimizerOptions optimizer(parse_optimizer(arguments.optimizer));
  optimizer.beta1(arguments.betas.at(0)).beta2(arguments.betas.at(1)).eps(arguments.eps);
  optimizer.weight_decay(arguments.weight_decay).no_decay_bias(arguments.no_decay_bias);
  optimizer.momentum(arguments.momentum).nesterov(arguments.nesterov);
  optimizer.alpha(arguments.alpha).centered(arguments.centered);
  optimizer.validate();

  ScheduleOptions schedule(parse_schedule(arguments.lr_schedule));
  schedule.lr(arguments.lr.value_or(optimizer.default_lr())).warmup_steps(arguments.warmup_steps);
  schedule.min_lr(arguments.min_lr).power(arguments.lr_power);

  TrainerOptions options;
  options.batch_size(arguments.batch_size).micro_batch_size(arguments.micro_batch_size);
  options.epochs(arguments.epochs.value_or(1)).max_steps(arguments.max_steps.value_or(0));
  options.optimizer(optimizer).schedule(schedule).grad_clip(arguments.grad_clip).freeze(arguments.freeze);
  options.max_skipped_steps(arguments.max_skipped_steps).seed(arguments.common.seed);
  options.sequence_parallel(arguments.sequence_parallel);
  options.activation_checkpointing(arguments.activation_checkpointing);
  options.output(arguments.output).resume(arguments.resume).save_every(arguments.save_every);
  options.keep_last(arguments.keep_last).eval_every(arguments.eval_every);
  return options;
}

}  // namespace optp::cli

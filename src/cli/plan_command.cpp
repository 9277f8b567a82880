// optp plan
#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>

#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/cli/number_checks.h"
#include "src/cli/texts_option.h"
#include "src/plan/plan.h"

namespace optp::cli {
namespace {

struct PlanArguments {
  CommonOptions common;
  TrainingShape shape{.batch_size = 0, .seq_len = 0};
  std::string optimizer = "adamw";
  double momentum = 0;
  bool centered = false;
  std::optional<double> dropout, attention_dropout;
  std::vector<std::string> freeze;
};

PlanOptions plan_options(const PlanArguments& arguments) {
  PlanOptions options;
  options.config = model_of(arguments.common).config;
  options.type = dtype_of(arguments.common.dtype);
  options.tp = arguments.common.tp;
  options.dp = arguments.common.dp;
  options.shape = arguments.shape;
  if (options.shape.batch_size == 0) options.shape.batch_size = options.dp;
  if (options.shape.seq_len == 0) options.shape.seq_len = options.config.max_position_embeddings();
  options.optimizer =
      OptimizerOptions(parse_optimizer(arguments.optimizer)).momentum(arguments.momentum).centered(arguments.centered);
  if (arguments.dropout) options.config.dropout(*arguments.dropout);
  if (arguments.dropout == 0.0) options.config.attention_dropout(0);
  if (arguments.attention_dropout) options.config.attention_dropout(*arguments.attention_dropout);
  options.freeze = arguments.freeze;
  return options;
}

int run_plan(const PlanArguments& arguments) {
  const PlanOptions options = plan_options(arguments);
  const Plan plan = make_plan(options);
  std::cout << plan_text(options, plan);
  if (!arguments.common.json.empty()) write_file(arguments.common.json, plan_json(options, plan));
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* command =
      app.add_subcommand("plan", "Parameters, memory and communication of training, without building the model");
  add_common_options(*command, arguments->common, {"float32", "bfloat16", "float64"});
  add_dp_option(*command, arguments->common);
  TrainingShape& shape = arguments->shape;
  command
      ->add_option("--batch-size", shape.batch_size,
                   "Sequences in an optimizer step, over all copies (default: one each)")
      ->check(kPositive);
  command
      ->add_option("--micro-batch-size", shape.micro_batch_size,
                   "Sequences that a copy takes at once (default: its whole part of the batch)")
      ->check(kNonNegative);
  command->add_option("--seq-len", shape.seq_len, "Tokens of a sequence (default: the model's positions)")
      ->check(kPositive);
  command->add_flag("--activation-checkpointing", shape.activation_checkpointing,
                    "Keep the inputs of layers only, and compute the rest again in backward");
  command->add_flag("--sequence-parallel", shape.sequence_parallel,
                    "Share layer norms and dropout by tokens over the tensor-parallel ranks");
  command->add_option("--optimizer", arguments->optimizer, "adamw, adam, sgd or rmsprop")
      ->check(CLI::IsMember({"adamw", "adam", "sgd", "rmsprop"}))
      ->capture_default_str();
  command->add_option("--momentum", arguments->momentum, "sgd, rmsprop")->check(kNonNegative);
  command->add_flag("--centered", arguments->centered, "rmsprop");
  command->add_option("--dropout", arguments->dropout, "Default: the model's; 0 alone turns off both")
      ->check(CLI::Range(0.0, 0.999));
  command->add_option("--attention-dropout", arguments->attention_dropout, "Default: the model's")
      ->check(CLI::Range(0.0, 0.999));
  add_texts_option(*command, "--freeze", arguments->freeze,
                   "Parameters that are not trained: \"model.decoder.embed_*\"")
      ->type_name("PATTERN ...");
  command->footer(
      "Examples:\n"
      "  optp plan --model opt-175b --tp 96 --dp 2\n"
      "  optp plan --model opt-1.3b --tp 4 --batch-size 8 --sequence-parallel --dtype bfloat16 --json plan.json");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& /*program*/) { return run_plan(*arguments); };
  });
}

}  // namespace optp::cli

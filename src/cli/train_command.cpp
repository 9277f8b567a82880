// optp train
#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <csignal>
#include <iostream>
#include <memory>
#include <optional>
#include <utility>

#include "parallel/agreement.h"
#include "src/checkpoint/hf_writer.h"
#include "src/cli/commands.h"
#include "src/cli/run_file.h"
#include "src/cli/train_console.h"
#include "src/cli/train_options.h"
#include "src/cli/train_sample.h"
#include "src/cli/verify_first.h"
#include "src/data/open_tokens.h"
#include "src/data/tokenizer.h"
#include "src/log.h"
#include "src/process_memory.h"
#include "src/profile/trace.h"
#include "src/train/run_folder.h"
#include "src/train/stop_signals.h"
#include "src/train/token_training_set.h"
#include "src/train/trainer.h"

namespace optp::cli {
namespace {

struct TrainData {
  std::unique_ptr<TokenTrainingSet> training, validation;  // the latter may be missing
};

std::string tokenizer_of(const TrainArguments& arguments, const ModelSource& source) {
  if (!arguments.tokenizer.empty()) return arguments.tokenizer;
  return source.path ? tokenizer_of_model(*source.path) : "bytes";
}

TrainData open_data(const TrainArguments& arguments, const OptConfig& config, const std::string& tokenizer,
                    const Mesh& mesh) {
  const TokenDataset::Options options{
      .seq_len = sequence_length(arguments, config), .shuffle = !arguments.no_shuffle, .seed = arguments.common.seed};
  const auto checked = [&](TokenDataset data) {
    data.check_vocabulary(config.vocab_size());
    return data;
  };
  TokenDataset training = checked({open_tokens(arguments.train_data, tokenizer, mesh.world()), options});
  TrainData data;
  if (arguments.val_split > 0) {
    auto [first, last] = training.split(arguments.val_split);
    data.validation = std::make_unique<TokenTrainingSet>(std::move(last));
    training = std::move(first);
  } else if (!arguments.val_data.empty()) {
    TokenDataset::Options in_order = options;
    in_order.shuffle = false;
    data.validation = std::make_unique<TokenTrainingSet>(
        checked({open_tokens(arguments.val_data, tokenizer, mesh.world()), in_order}));
  }
  data.training = std::make_unique<TokenTrainingSet>(std::move(training));
  return data;
}

// What the run's options turned out to be, paths from the root so that the file works from any folder.
ResolvedOptions run_options(const CLI::App& command, const TrainArguments& arguments, const ModelSource& source,
                            const std::string& tokenizer) {
  ResolvedOptions options = resolved_options(command);
  for (const char* name : {"resume", "recipe", "json", "quiet"}) options.erase(name);
  const auto absolute = [](const std::string& path) { return std::filesystem::absolute(path).string(); };
  for (const char* name : {"train-data", "val-data", "output"}) {
    for (std::string& path : options[name]) path = absolute(path);
    if (options[name].empty()) options.erase(name);
  }
  if (source.path) options["model"] = {absolute(arguments.common.model)};
  options["tokenizer"] = {tokenizer == "bytes" ? tokenizer : absolute(tokenizer)};
  const auto number = [](double value) { return nlohmann::json(value).dump(); };
  const TrainerOptions trainer = trainer_options(arguments);
  options["lr"] = {number(trainer.schedule().lr())};
  options["weight-decay"] = {number(trainer.optimizer().decay())};
  options["seq-len"] = {std::to_string(sequence_length(arguments, source.config))};
  options["dropout"] = {number(source.config.dropout())};
  options["attention-dropout"] = {number(source.config.attention_dropout())};
  options["micro-batch-size"] = {std::to_string(arguments.micro_batch_size)};
  options["threads"] = {std::to_string(at::get_num_threads())};
  if (!arguments.max_steps) options["epochs"] = {std::to_string(trainer.epochs())};
  return options;
}

RunDescription describe(const TrainArguments& arguments, const ModelSource& source, const TrainData& data,
                        const ResolvedOptions& options, const std::string& tokenizer) {
  const OptConfig& config = source.config;
  RunDescription description;
  description.title = c10::str(source.name, ": ", config.num_hidden_layers(), " layers, hidden ", config.hidden_size(),
                               ", ", config.num_attention_heads(), " heads, vocabulary ", config.vocab_size(), ", ",
                               config.num_parameters(), " parameters");
  const auto sequences = [&](const TokenTrainingSet& set) {
    return c10::str(set.size(), " sequences of ", sequence_length(arguments, config), " tokens");
  };
  description.facts = {
      {"Weights", source.path ? source.path->string() : c10::str("fresh, seed ", arguments.common.seed)},
      {"Training data", sequences(*data.training)},
      {"Validation data", data.validation ? sequences(*data.validation) : "none"},
      {"Tokenizer", tokenizer},
      {"Mesh", c10::str("tp ", arguments.common.tp, " x dp ", arguments.common.dp, ", ", at::get_num_threads(),
                        at::get_num_threads() == 1 ? " thread a rank" : " threads a rank")},
      {"Arithmetic", arguments.common.dtype}};
  for (const auto& [name, texts] : options) {
    std::string all;
    for (const std::string& text : texts) all += (all.empty() ? "" : " ") + text;
    description.options.emplace_back(name, all);
  }
  return description;
}

// What the run is for: the trained model as a Hugging Face folder, in the precision in which it was trained.
void write_final_model(const RunFolder& folder, const TrainArguments& arguments, const ModelSource& source,
                       const Trainer& trainer, const std::string& tokenizer, const Mesh& mesh) {
  std::vector<NamedShard> weights = trainer.weights();
  // What was trained in bfloat16 has a float32 master. What was frozen has none, and is read again as it was.
  const auto stored = source.open(arguments.common.seed, mesh);
  stored->check(weights);
  for (NamedShard& weight : weights) {
    if (weight.tensor.scalar_type() != at::kBFloat16) continue;
    weight.tensor = at::empty(weight.tensor.sizes(), at::kFloat);
    stored->read(weight);
  }
  HfWriterOptions options{.replace = true};
  if (tokenizer != "bytes") options.tokenizer = tokenizer;
  write_hf_directory(folder.final_model(), source.config, weights, mesh, std::nullopt, options);
  log_line(LogLevel::info, "the trained model is in " + folder.final_model().string());
}

void write_result(const TrainArguments& arguments, const TrainingResult& result) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (result.last) json = nlohmann::ordered_json::parse(metrics_line(*result.last));
  json["steps"] = result.steps;
  json["output"] = arguments.output;
  if (!arguments.common.json.empty()) write_file(arguments.common.json, json.dump(2) + "\n");
  if (result.last) std::cout << "step " << result.steps << ", loss " << result.last->loss << "\n";
}

int run_train(CLI::App& command, TrainArguments& arguments, const std::vector<std::string>& program) {
  apply_recipe(command, arguments);
  const ModelSource source = trained_model(arguments);
  TrainerOptions options = trainer_options(arguments);
  sequence_length(arguments, source.config);
  const RunFolder folder(arguments.output);
  if (!arguments.resume) folder.refuse_other_run();
  const std::string tokenizer = tokenizer_of(arguments, source);

  const Participation participation = join(arguments.common, program);
  if (participation.exit_status) return *participation.exit_status;
  const Mesh& mesh = participation.mesh;
  const TrainData data = open_data(arguments, source.config, tokenizer, mesh);
  const ResolvedOptions resolved = run_options(command, arguments, source, tokenizer);
  options.description(describe(arguments, source, data, resolved, tokenizer));

  if (arguments.verify_first && !verify_first_batch(arguments, source, *data.training, mesh)) {
    log_line(LogLevel::error,
             "this run does not compute what the reference does on its first batch, so it was not started");
    mesh.world().barrier("train end");
    return 1;
  }
  keep_freed_memory();
  std::optional<Trace> trace;
  if (!arguments.profile.empty()) trace.emplace(arguments.profile, mesh.world());

  OptForCausalLM model(source.config, mesh, dtype_of(arguments.common.dtype));
  Trainer trainer(model, options);
  trainer.load_weights(
      [&](const std::vector<NamedShard>& parameters) { source.load_weights(parameters, arguments.common.seed, mesh); });

  const bool speaks = mesh.world().rank() == 0;
  TrainConsole console(trainer.total_steps(*data.training), arguments.log_every);
  trainer.on_start([&] {
    if (speaks) write_file(folder.options().string(), run_json("train", resolved));
  });
  trainer.on_step([&](const StepMetrics& metrics) { console.show(metrics); });
  trainer.on_checkpoint(
      [](const std::filesystem::path& path) { log_line(LogLevel::info, "checkpoint written to " + path.string()); });
  if (arguments.sample_tokens > 0) {
    const TokenTrainingSet& shown = data.validation ? *data.validation : *data.training;
    trainer.sample_with(text_sampler(model, tokenizer, shown, arguments.common.seed, arguments.sample_tokens));
  }
  const StopSignals signals;
  trainer.stop_when([&] { return signals.received(); });
  const TrainingResult result =
      data.validation ? trainer.fit(*data.training, *data.validation) : trainer.fit(*data.training);
  if (trace) trace->write();

  if (result.stop_code != 0) {
    log_line(LogLevel::warn, c10::str("stopped by ", result.stop_code == SIGINT ? "SIGINT" : "SIGTERM", " after step ",
                                      result.steps, "; the same command with --resume goes on"));
  } else {
    write_final_model(folder, arguments, source, trainer, tokenizer, mesh);
    if (speaks) write_result(arguments, result);
  }
  mesh.world().barrier("train end");
  return result.stop_code == 0 ? 0 : 128 + result.stop_code;
}

}  // namespace

void add_train(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand("train", "Train or fine-tune a model");
  add_train_options(*command, *arguments);
  command->footer(
      "Writes under --output: run.json (these options; --config run.json repeats the run), metrics.jsonl (one object\n"
      "a step), tensorboard/, report.html (a page with the curves), checkpoints/, and final/, a Hugging Face folder.\n"
      "Ctrl-C or SIGTERM writes a checkpoint and leaves; --resume goes on from it, at any --tp and --dp.\n"
      "Exit status: 0 trained, 1 --verify-first failed, 2 bad usage or input, 3 a rank failed or training diverged,\n"
      "130 and 143 stopped.\n"
      "\n"
      "Examples:\n"
      "  optp train --model opt-tiny --vocab-size 260 --train-data book.txt --output run      a small model of bytes\n"
      "  optp train --model my-opt --train-data a.txt b.txt --val-split 0.05 --tp 2 --dp 2 --lr 1e-5 --output tuned\n"
      "  optp train --model opt-125m --recipe opt-125m --train-data tokens.npy --tokenizer opt-tokenizer --output run\n"
      "  optp train --config run/run.json --resume                                        go on with a run\n"
      "  optp train --config run/run.json --lr 3e-4 --output other                        repeat it, changed");
  command->callback([command, arguments, &runner] {
    runner = [command, arguments](const std::vector<std::string>& program) {
      return run_train(*command, *arguments, program);
    };
  });
}

}  // namespace optp::cli

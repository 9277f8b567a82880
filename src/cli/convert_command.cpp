// optp convert
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>

#include "src/checkpoint/convert.h"
#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/cli/number_checks.h"
#include "src/log.h"

namespace optp::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAsStored = "as-stored";

struct ConvertArguments {
  CommonOptions common;
  std::string to, format;
  std::string max_shard_size = "5GB";
  std::string tokenizer;
};

// The folder that the source's files lie in, if it has one.
std::optional<fs::path> folder_of(const ModelSource& source) {
  if (!source.path) return std::nullopt;
  return fs::is_directory(*source.path) ? *source.path : source.path->parent_path();
}

int run_convert(const ConvertArguments& arguments) {
  const CommonOptions& common = arguments.common;
  set_log(log_level_of(common.log_level, common.quiet), /*speaks=*/true);
  TORCH_CHECK_VALUE(common.tp == 1 || arguments.format == "checkpoint", "--tp ", common.tp,
                    " is for --format checkpoint; the other formats hold whole tensors.");
  const ModelSource source = model_of(common);
  HfWriterOptions writer{.max_shard_size = parse_shard_size(arguments.max_shard_size),
                         .tokenizer = folder_of(source),
                         .generation_config = folder_of(source)};
  if (!arguments.tokenizer.empty()) {
    TORCH_CHECK_VALUE(fs::is_directory(arguments.tokenizer), "--tokenizer ", arguments.tokenizer, " is no folder.");
    writer.tokenizer = arguments.tokenizer;
  }
  ConvertOptions options{.dtype = {}, .seed = common.seed};
  if (common.dtype != kAsStored) options.dtype = dtype_of(common.dtype);

  const auto begin = std::chrono::steady_clock::now();
  const ConvertedModel written = arguments.format == "hf" ? convert_to_hf(source, arguments.to, options, writer)
                                 : arguments.format == "checkpoint"
                                     ? convert_to_checkpoint(source, arguments.to, common.tp, options)
                                     : convert_to_torchscript(source, arguments.to, options);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

  nlohmann::ordered_json result;
  result["from"] = common.model;
  result["to"] = arguments.to;
  result["format"] = arguments.format;
  result["dtype"] = c10::getDtypeNames(written.dtype).first;
  result["parameters"] = written.parameters;
  result["bytes"] = written.bytes;
  result["seconds"] = seconds.count();
  if (!common.json.empty()) write_file(common.json, result.dump(2) + "\n");
  std::cout << arguments.to << ": " << written.parameters << " parameters, " << c10::getDtypeNames(written.dtype).first
            << ", " << written.bytes << " bytes\n";
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<ConvertArguments>();
  CommonOptions& common = arguments->common;
  common.dtype = kAsStored;
  CLI::App* command = app.add_subcommand("convert", "Write a model in another format");
  command
      ->add_option("--from", common.model,
                   "A preset, a folder in Hugging Face's layout, a training checkpoint, a TorchScript file that optp "
                   "wrote, or pytorch_model.bin beside its config.json")
      ->required();
  command
      ->add_option("--to", arguments->to, "The folder or file to write, which must not exist (a folder may be empty)")
      ->required();
  command
      ->add_option("--format", arguments->format,
                   "What to write: a folder in Hugging Face's layout, a training checkpoint or a TorchScript file")
      ->check(CLI::IsMember({"hf", "checkpoint", "torchscript"}))
      ->required();
  command->add_option("--dtype", common.dtype, "Type of the written weights")
      ->check(CLI::IsMember({kAsStored, "float32", "float16", "bfloat16"}))
      ->capture_default_str();
  command->add_option("--tp", common.tp, "checkpoint: ranks that its files are cut for")
      ->check(kPositive)
      ->capture_default_str();
  command->add_option("--max-shard-size", arguments->max_shard_size, "hf: largest file of weights (200KB, 5GB)")
      ->capture_default_str();
  command->add_option("--tokenizer", arguments->tokenizer,
                      "hf: copy the tokenizer's files from this folder (default: those beside the weights)");
  command->add_option("--seed", common.seed, "Seed of a preset's fresh weights")->capture_default_str();
  command->add_option("--json", common.json, "Write the result as JSON to this file");
  add_preset_options(*command, common);
  add_log_options(*command, common);
  command->footer(
      "Examples:\n"
      "  optp convert --from facebook-opt-1.3b/pytorch_model.bin --to opt-1.3b --format hf --dtype float16\n"
      "  optp convert --from run/checkpoints/step-00001000 --to my-opt --format hf --tokenizer opt-tokenizer\n"
      "  optp convert --from my-opt --to step-00000000 --format checkpoint --tp 4\n"
      "  optp convert --from my-opt --to my-opt.pt --format torchscript\n"
      "  optp convert --from my-opt.pt --to my-opt-again --format hf\n"
      "  optp convert --from opt-125m --seed 1 --to fresh-opt --format hf --max-shard-size 200MB");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>&) { return run_convert(*arguments); };
  });
}

}  // namespace optp::cli

// optp forward
#include <ATen/ATen.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <iostream>
#include <memory>

#include "modules/opt_for_causal_lm.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/safetensors_writer.h"
#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/log.h"

namespace optp::cli {
namespace {

struct ForwardArguments {
  CommonOptions common;
  std::string input, output;
  std::string output_dtype = "float32";
};

struct ForwardInput {
  at::Tensor input_ids, attention_mask, labels;  // [B, T] int64; the last two may be undefined
};

ForwardInput read_input(const std::string& path, const OptConfig& config) {
  const SafetensorsFile file(path);
  for (const std::string& name : file.names()) {
    TORCH_CHECK_VALUE(name == "input_ids" || name == "attention_mask" || name == "labels", path, ": tensor \"", name,
                      "\" is unknown; use input_ids, attention_mask and labels.");
  }
  TORCH_CHECK_VALUE(file.contains("input_ids"), path, " has no tensor input_ids; add one, int64 [B, T].");
  ForwardInput input;
  const auto read = [&](const char* name) -> at::Tensor {
    if (!file.contains(name)) return {};
    TORCH_CHECK_VALUE(
        file.dtype(name) == at::kLong && file.shape(name).size() == 2 && file.shape(name) == file.shape("input_ids"),
        path, ": ", name, " is ", c10::toString(file.dtype(name)), " ", at::IntArrayRef(file.shape(name)),
        "; use int64 [B, T], the same for all.");
    return file.read(name);
  };
  input.input_ids = read("input_ids");
  input.attention_mask = read("attention_mask");
  input.labels = read("labels");
  TORCH_CHECK_VALUE(input.input_ids.numel() > 0, path, ": input_ids are empty; pass at least one token.");
  TORCH_CHECK_VALUE(input.input_ids.size(1) <= config.max_position_embeddings(), path, ": sequences of ",
                    input.input_ids.size(1), " tokens exceed the model's ", config.max_position_embeddings(),
                    " positions; shorten them.");
  const auto check_ids = [&](const char* name, const at::Tensor& ids, bool may_ignore) {
    if (!ids.defined()) return;
    at::Tensor wrong = ids.lt(0).logical_or_(ids.ge(config.vocab_size()));
    if (may_ignore) wrong.logical_and_(ids.ne(-100));
    if (!wrong.any().item<bool>()) return;
    TORCH_CHECK_VALUE(false, path, ": ", name, " hold id ", ids.masked_select(wrong)[0].item<int64_t>(),
                      ", outside the vocabulary of ", config.vocab_size(), "; use ids from 0 to ",
                      config.vocab_size() - 1, may_ignore ? ", or -100 to leave a position out." : ".");
  };
  check_ids("input_ids", input.input_ids, false);
  check_ids("labels", input.labels, true);
  TORCH_CHECK_VALUE(!input.labels.defined() || input.input_ids.size(1) > 1, path,
                    ": labels need sequences of two tokens or more, since each token predicts the next.");
  if (input.attention_mask.defined()) {
    const at::Tensor wrong = input.attention_mask.ne(0).logical_and_(input.attention_mask.ne(1));
    TORCH_CHECK_VALUE(!wrong.any().item<bool>(), path, ": attention_mask holds other values than 0 and 1.");
  }
  return input;
}

int run_forward(const ForwardArguments& arguments, const std::vector<std::string>& program) {
  const ModelSource source = model_of(arguments.common);
  const Participation participation = join(arguments.common, program);
  if (participation.exit_status) return *participation.exit_status;
  const ForwardInput input = read_input(arguments.input, source.config);

  const auto begin = std::chrono::steady_clock::now();
  const at::InferenceMode inference;
  OptForCausalLM model(source.config, participation.mesh, dtype_of(arguments.common.dtype));
  source.load_weights(named_shards(*model), arguments.common.seed, participation.mesh);
  const std::chrono::duration<double> loading = std::chrono::steady_clock::now() - begin;
  const OptOutput output =
      model->forward(input.input_ids, {.attention_mask = input.attention_mask, .labels = input.labels});
  const std::chrono::duration<double> total = std::chrono::steady_clock::now() - begin;

  if (participation.mesh.world().rank() == 0) {
    const at::ScalarType type = dtype_of(arguments.output_dtype);
    std::vector<std::pair<std::string, at::Tensor>> tensors{{"logits", output.logits.to(type).contiguous()}};
    if (output.loss.defined()) tensors.emplace_back("loss", output.loss.to(type));
    write_safetensors(arguments.output, tensors);
    nlohmann::ordered_json result;
    result["logits_shape"] = output.logits.sizes().vec();
    if (output.loss.defined()) result["loss"] = output.loss.item<double>();
    result["seconds"] = total.count();
    if (!arguments.common.json.empty()) write_file(arguments.common.json, result.dump(2) + "\n");
    if (output.loss.defined()) std::cout << "loss " << output.loss.item<double>() << "\n";
    log_line(LogLevel::info, c10::str("logits ", output.logits.sizes(), " written to ", arguments.output, " (weights ",
                                      loading.count(), " s, forward ", (total - loading).count(), " s)"));
  }
  participation.mesh.world().barrier("forward end");
  return 0;
}

}  // namespace

void add_forward(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<ForwardArguments>();
  CLI::App* command = app.add_subcommand("forward", "Compute logits for given token ids");
  add_common_options(*command, arguments->common, {"float32", "bfloat16", "float64"});
  command
      ->add_option("--input", arguments->input, "safetensors: input_ids, optionally attention_mask and labels, [B, T]")
      ->required();
  command->add_option("--output", arguments->output, "safetensors: logits [B, T, V], and loss if there are labels")
      ->required();
  command->add_option("--output-dtype", arguments->output_dtype, "Type of the written numbers")
      ->check(CLI::IsMember({"float32", "float64"}))
      ->capture_default_str();
  command->footer("Example:\n  optp forward --model my-opt --tp 2 --input in.safetensors --output out.safetensors");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& program) { return run_forward(*arguments, program); };
  });
}

}  // namespace optp::cli

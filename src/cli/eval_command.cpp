// optp eval
#include <ATen/ATen.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>

#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/cli/number_checks.h"
#include "src/cli/tokenizer_option.h"
#include "src/data/token_file.h"
#include "src/inference/inference_model.h"
#include "src/inference/multiple_choice.h"
#include "src/inference/perplexity.h"
#include "src/log.h"
#include "src/process_memory.h"
#include "src/progress.h"

namespace optp::cli {
namespace {

struct EvalArguments {
  CommonOptions common;
  std::string data, choices, tokenizer;
  std::optional<int64_t> window, stride;
  int64_t batch_size = 1;
};

// What is scored: a text with `</s>` in front, or tokens as they are in their file.
class EvalTokens {
 public:
  EvalTokens(const std::string& path, const Tokenizer* tokenizer, const OptConfig& config) {
    if (path.ends_with(".npy")) {
      file_.emplace(path);
      return;
    }
    std::vector<int64_t> ids = tokenizer->encode(read_text_file(path, size_t{1} << 40));
    ids.insert(ids.begin(), config.bos_token_id());
    ids_ = at::tensor(ids, at::kLong);
  }
  int64_t size() const { return file_ ? file_->size() : ids_.size(0); }
  at::Tensor read(int64_t first, int64_t count) const {
    return file_ ? file_->read(first, count) : ids_.narrow(0, first, count);
  }

 private:
  std::optional<TokenFile> file_;
  at::Tensor ids_;
};

PerplexityOptions options_of(const EvalArguments& arguments, const OptConfig& config) {
  PerplexityOptions options;
  // The default suits OPT; a model with fewer positions gets windows of its own length.
  options.window = arguments.window.value_or(std::min(options.window, config.max_position_embeddings()));
  options.stride = arguments.stride.value_or(options.window);
  options.batch_size = arguments.batch_size;
  return options;
}

nlohmann::ordered_json eval_text(OptForCausalLM& model, const EvalArguments& arguments, const Tokenizer* tokenizer) {
  const EvalTokens tokens(arguments.data, tokenizer, model->config());
  Progress progress("eval " + arguments.data, tokens.size(), "tokens");
  const Perplexity result = evaluate_perplexity(
      model, [&](int64_t first, int64_t count) { return tokens.read(first, count); }, tokens.size(),
      options_of(arguments, model->config()),
      [&](int64_t done) {
        progress.update(done);
        model->mesh().watch().set_progress(c10::str("token ", done, " of ", tokens.size()));
      });
  nlohmann::ordered_json json;
  json["tokens"] = result.tokens;
  json["loss"] = result.loss;
  json["perplexity"] = result.perplexity;
  return json;
}

nlohmann::ordered_json eval_choices(OptForCausalLM& model, const EvalArguments& arguments, const Tokenizer& tokenizer) {
  const std::vector<ChoiceItem> items = parse_choices(read_text_file(arguments.choices), arguments.choices);
  Progress progress("eval " + arguments.choices, static_cast<int64_t>(items.size()), "items");
  const ChoiceScores scores = score_choices(model, tokenizer, items, [&](int64_t done) {
    progress.update(done);
    model->mesh().watch().set_progress(c10::str("item ", done, " of ", items.size()));
  });
  nlohmann::ordered_json json;
  json["items"] = scores.items;
  json["accuracy"] = scores.accuracy;
  json["accuracy_normalized"] = scores.accuracy_normalized;
  return json;
}

int run_eval(const EvalArguments& arguments, const std::vector<std::string>& program) {
  TORCH_CHECK_VALUE(arguments.data.empty() != arguments.choices.empty(),
                    "eval needs one of --data FILE and --choices FILE; name it.");
  const at::ScalarType weights = weights_of(arguments.common);
  const ModelSource source = model_of(arguments.common);
  const bool texts = !arguments.choices.empty() || !arguments.data.ends_with(".npy");
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(arguments.tokenizer, source, texts);
  const Participation participation = join(arguments.common, program);
  if (participation.exit_status) return *participation.exit_status;
  keep_freed_memory();

  OptForCausalLM model =
      load_for_inference(source, participation.mesh, arguments.common.seed, dtype_of(arguments.common.dtype), weights);
  const nlohmann::ordered_json json = arguments.choices.empty() ? eval_text(model, arguments, tokenizer.get())
                                                                : eval_choices(model, arguments, *tokenizer);
  if (participation.mesh.world().rank() == 0) {
    for (const auto& [key, value] : json.items()) {
      std::cout << std::left << std::setw(21) << key << value.dump() << "\n";
    }
    if (!arguments.common.json.empty()) write_file(arguments.common.json, json.dump(2) + "\n");
  }
  participation.mesh.world().barrier("eval end");
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "Loss and perplexity of a text, or accuracy on multiple choice");
  add_common_options(*command, arguments->common, {"float32", "bfloat16", "float64"});
  add_weights_option(*command, arguments->common);
  add_dp_option(*command, arguments->common);
  command->add_option("--data", arguments->data, "Text (</s> is put in front), or tokens (.npy) as they are");
  command->add_option("--choices", arguments->choices,
                      "Multiple choice: {\"context\": \"...\", \"choices\": [...], \"answer\": 0} a line");
  command->add_option("--tokenizer", arguments->tokenizer,
                      "Folder with vocab.json and merges.txt, or bytes (default: the model's own)");
  command->add_option("--window", arguments->window, "Tokens that the model reads at once (2048, or its positions)")
      ->check(kPositive);
  command->add_option("--stride", arguments->stride, "Tokens between the starts of two windows (--window)")
      ->check(kPositive);
  command->add_option("--batch-size", arguments->batch_size, "Windows in a pass")
      ->check(kPositive)
      ->capture_default_str();
  command->footer(
      "A token is scored once, in the first window that holds it, except a window's first token. A smaller stride\n"
      "gives tokens more context and takes longer.\n"
      "Examples:\n"
      "  optp eval --model my-opt --data wiki.test.txt\n"
      "  optp eval --model my-opt --tp 2 --data tokens.npy --window 1024 --stride 512 --json result.json\n"
      "  optp eval --model my-opt --choices questions.jsonl");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& program) { return run_eval(*arguments, program); };
  });
}

}  // namespace optp::cli

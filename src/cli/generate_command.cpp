// optp generate
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>

#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/cli/number_checks.h"
#include "src/cli/texts_option.h"
#include "src/cli/tokenizer_option.h"
#include "src/data/utf8.h"
#include "src/inference/generator.h"
#include "src/inference/inference_model.h"
#include "src/inference/shared_lines.h"
#include "src/log.h"
#include "src/profile/trace.h"

namespace optp::cli {
namespace {

struct GenerateArguments {
  CommonOptions common;
  GenerationOptions options;
  std::string tokenizer;
  std::vector<std::string> prompts, prompt_ids;
  std::string prompt_file, profile;
  bool interactive = false;
  bool stream = false;
};

using Prompts = std::vector<std::vector<int64_t>>;

std::vector<int64_t> parse_ids(const std::string& list) {
  std::vector<int64_t> ids;
  std::istringstream stream(list);
  for (std::string number; std::getline(stream, number, ',');) {
    size_t used = 0;
    int64_t id = -1;
    try {
      id = std::stoll(number, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    TORCH_CHECK_VALUE(used > 0 && used == number.size() && id >= 0, "--prompt-ids \"", list, "\": \"", number,
                      "\" is no id; write whole numbers with commas between them, \"2,100,524\".");
    ids.push_back(id);
  }
  TORCH_CHECK_VALUE(!ids.empty(), "--prompt-ids is empty; write ids with commas between them, \"2,100,524\".");
  return ids;
}

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::istringstream stream(read_text_file(path));
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(line);
  }
  TORCH_CHECK_VALUE(!lines.empty(), path, " is empty; write one prompt a line.");
  return lines;
}

// `</s>` and the text's tokens, as transformers' tokenizer gives them.
std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, const std::string& text, const OptConfig& config) {
  TORCH_CHECK_VALUE(!text.empty(), "a prompt is empty; give each at least one character.");
  TORCH_CHECK_VALUE(valid_utf8_size(text) == text.size(), "a prompt is not valid UTF-8; convert it to UTF-8.");
  std::vector<int64_t> ids = tokenizer.encode(text);
  ids.insert(ids.begin(), config.bos_token_id());
  return ids;
}

Prompts prompts_of(const GenerateArguments& arguments, const Tokenizer* tokenizer, const OptConfig& config) {
  Prompts prompts;
  for (const std::string& list : arguments.prompt_ids) prompts.push_back(parse_ids(list));
  for (const std::string& text : arguments.prompts) prompts.push_back(encode_prompt(*tokenizer, text, config));
  if (!arguments.prompt_file.empty()) {
    for (const std::string& line : lines_of(arguments.prompt_file)) {
      prompts.push_back(encode_prompt(*tokenizer, line, config));
    }
  }
  TORCH_CHECK_VALUE(!prompts.empty(),
                    "there is no prompt; use --prompt, --prompt-file, --prompt-ids or --interactive.");
  return prompts;
}

nlohmann::ordered_json json_of(const std::vector<GenerationResult>& results, double seconds) {
  nlohmann::ordered_json json;
  json["results"] = nlohmann::ordered_json::array();
  size_t tokens = 0;
  for (const GenerationResult& result : results) {
    tokens += result.output_ids.size();
    nlohmann::ordered_json entry;
    entry["prompt_ids"] = result.prompt_ids;
    entry["output_ids"] = result.output_ids;
    entry["text"] = result.text;
    entry["finish"] = result.finish;
    json["results"].push_back(entry);
  }
  json["tokens_per_second"] = static_cast<double>(tokens) / seconds;
  return json;
}

std::string ids_text(const std::vector<int64_t>& ids) {
  std::string text;
  for (const int64_t id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

// One continuation after the other; a line in front of each says which it is, where there are several.
void print_results(const std::vector<GenerationResult>& results, int64_t num_samples, bool as_text) {
  for (size_t i = 0; i < results.size(); ++i) {
    if (results.size() > 1) {
      std::cout << "--- prompt " << i / num_samples + 1;
      if (num_samples > 1) std::cout << ", sample " << i % num_samples + 1;
      std::cout << " ---\n";
    }
    std::cout << (as_text ? results[i].text : ids_text(results[i].output_ids)) << "\n";
  }
  std::cout << std::flush;
}

// Generates, shows what came, and returns it as `--json` wants it.
nlohmann::ordered_json run_prompts(Generator& generator, const Prompts& prompts, const GenerateArguments& arguments,
                                   const Mesh& mesh, bool as_text) {
  const bool speaks = mesh.world().rank() == 0;
  const int64_t num_samples = arguments.options.num_samples;
  const bool streams =
      speaks && as_text && prompts.size() == 1 && num_samples == 1 && (arguments.stream || isatty(STDOUT_FILENO) == 1);
  const double communication = mesh.communication_seconds();
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<GenerationResult> results =
      generator.generate(prompts, arguments.options, [&](const GeneratedToken& token) {
        if (streams) std::cout << token.text << std::flush;
      });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (!speaks) return {};
  if (streams) {
    std::cout << "\n" << std::flush;
  } else {
    print_results(results, num_samples, as_text);
  }
  nlohmann::ordered_json json = json_of(results, seconds.count());
  json["comm_fraction"] = (mesh.communication_seconds() - communication) / seconds.count();
  log_line(LogLevel::info, c10::str(json["tokens_per_second"].get<double>(), " tokens/s"));
  return json;
}

int run_generate(const GenerateArguments& arguments, const std::vector<std::string>& program) {
  arguments.options.sampling.validate();
  const at::ScalarType weights = weights_of(arguments.common);
  const ModelSource source = model_of(arguments.common);
  const bool texts = !arguments.prompts.empty() || !arguments.prompt_file.empty() || arguments.interactive;
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(arguments.tokenizer, source, texts);
  Prompts prompts;
  if (!arguments.interactive) prompts = prompts_of(arguments, tokenizer.get(), source.config);
  const Participation participation = join(arguments.common, program);
  if (participation.exit_status) return *participation.exit_status;

  const OptForCausalLM model =
      load_for_inference(source, participation.mesh, arguments.common.seed, dtype_of(arguments.common.dtype), weights);
  Generator generator(model, tokenizer.get());
  const bool speaks = participation.mesh.world().rank() == 0;
  nlohmann::ordered_json json;
  std::optional<Trace> trace;
  if (!arguments.profile.empty()) trace.emplace(arguments.profile, participation.mesh.world());
  if (arguments.interactive) {
    SharedLines lines(participation.mesh.world(), "> ");
    while (const std::optional<std::string> line = lines.next()) {
      try {
        json = run_prompts(generator, {encode_prompt(*tokenizer, *line, source.config)}, arguments, participation.mesh,
                           true);
      } catch (const c10::ValueError& error) {  // alike on every rank: the next line may be better
        log_line(LogLevel::error, error.what_without_backtrace());
      }
    }
  } else {
    json = run_prompts(generator, prompts, arguments, participation.mesh, tokenizer != nullptr);
  }
  if (speaks && !arguments.common.json.empty()) write_file(arguments.common.json, json.dump(2) + "\n");
  if (trace) trace->write();
  participation.mesh.world().barrier("generate end");
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = app.add_subcommand("generate", "Continue prompts");
  add_common_options(*command, arguments->common, {"float32", "bfloat16", "float64"});
  add_weights_option(*command, arguments->common);
  command->add_option("--tokenizer", arguments->tokenizer,
                      "Folder with vocab.json and merges.txt, or bytes (default: the model's own)");
  auto* prompt =
      add_texts_option(*command, "--prompt", arguments->prompts, "Texts to continue; </s> is put in front of each");
  auto* file = command->add_option("--prompt-file", arguments->prompt_file, "The same from a file, one prompt a line");
  auto* ids =
      add_texts_option(*command, "--prompt-ids", arguments->prompt_ids, "Ids to continue, as they are: \"2,100,524\"");
  command->add_flag("--interactive", arguments->interactive, "Read prompts from standard input, line by line")
      ->excludes(prompt)
      ->excludes(file)
      ->excludes(ids);
  command->add_option("--profile", arguments->profile,
                      "File for a trace of every rank, for ui.perfetto.dev or chrome://tracing");
  command->add_flag("--stream", arguments->stream,
                    "Print the text of a single prompt as it comes, also when standard output is no terminal");
  GenerationOptions& options = arguments->options;
  command->add_option("--max-new-tokens", options.max_new_tokens, "Longest continuation")
      ->check(kPositive)
      ->capture_default_str();
  command->add_option("--num-samples", options.num_samples, "Continuations of each prompt")
      ->check(kPositive)
      ->capture_default_str();
  add_texts_option(*command, "--stop", options.stops, "Texts that end a continuation; they are not part of it");

  const char* choice = "How the next token is chosen";
  command->add_option("--temperature", options.sampling.temperature, "0: the likeliest; 1: as the model says")
      ->capture_default_str()
      ->group(choice);
  command->add_option("--top-k", options.sampling.top_k, "Only among the k likeliest (0: all)")
      ->capture_default_str()
      ->group(choice);
  command->add_option("--top-p", options.sampling.top_p, "Only among the likeliest that hold this probability")
      ->capture_default_str()
      ->group(choice);
  command->add_option("--repetition-penalty", options.sampling.repetition_penalty, "Above 1: say less again")
      ->capture_default_str()
      ->group(choice);
  command->footer(
      "Examples:\n"
      "  optp generate --model my-opt --prompt \"A photo of\"\n"
      "  optp generate --model my-opt --tp 2 --temperature 0.8 --top-p 0.95 --num-samples 3 --prompt \"Once\"\n"
      "  optp generate --model my-opt --prompt-ids 2,250,1345 --max-new-tokens 5 --json out.json\n"
      "  optp generate --model my-opt --weights int8 --interactive");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& program) {
      arguments->options.seed = arguments->common.seed;
      return run_generate(*arguments, program);
    };
  });
}

}  // namespace optp::cli

// optp tokenize
#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>

#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/data/text_reader.h"
#include "src/data/token_file.h"
#include "src/data/token_writer.h"
#include "src/data/tokenize.h"
#include "src/data/tokenizer.h"
#include "src/log.h"
#include "src/progress.h"

namespace optp::cli {
namespace {

struct TokenizeArguments {
  CommonOptions common;  // --json and what add_log_options adds
  std::string tokenizer, input, output, document_separator, ids;
  bool decode = false;
};

struct TokenizeResult {
  int64_t tokens = 0;
  int64_t bytes = 0;
};

TokenizeResult print_ids(const std::string& text, const Tokenizer& tokenizer) {
  const std::vector<int64_t> ids = tokenizer.encode(text);
  for (size_t i = 0; i < ids.size(); ++i) std::cout << (i == 0 ? "" : ",") << ids[i];
  std::cout << "\n";
  return {static_cast<int64_t>(ids.size()), static_cast<int64_t>(text.size())};
}

TokenizeResult encode_file(const TokenizeArguments& arguments, const Tokenizer& tokenizer) {
  TextReader text(arguments.input);
  TokenWriter ids(arguments.output, tokenizer.vocab_size());
  tokenize(text, tokenizer, arguments.document_separator, ids);
  ids.commit();
  return {ids.count(), text.position()};
}

TokenizeResult decode_file(const TokenizeArguments& arguments, const Tokenizer& tokenizer) {
  const TokenFile ids(arguments.input);
  return {ids.size(), detokenize(ids, tokenizer, arguments.output)};
}

void check_tokenize_arguments(const TokenizeArguments& arguments, bool prints_ids, bool has_separator) {
  const bool has_files = !arguments.input.empty() || !arguments.output.empty();
  TORCH_CHECK_VALUE(!prints_ids || (!has_files && !arguments.decode && !has_separator),
                    "--ids prints the ids of its text; leave out --input, --output, --decode and "
                    "--document-separator.");
  if (prints_ids) return;
  TORCH_CHECK_VALUE(!arguments.input.empty() && !arguments.output.empty(),
                    "name the files with --input and --output, or a text with --ids.");
  TORCH_CHECK_VALUE(!arguments.decode || !has_separator,
                    "--document-separator splits a text and means nothing with --decode; leave one of them out.");
  TORCH_CHECK_VALUE(!has_separator || !arguments.document_separator.empty(),
                    "--document-separator is empty; name the text that stands between documents.");
  std::error_code ignored;
  TORCH_CHECK_VALUE(!std::filesystem::equivalent(arguments.input, arguments.output, ignored), "--output ",
                    arguments.output, " is the file that --input names; write to another one.");
}

int run_tokenize(const TokenizeArguments& arguments, bool prints_ids, bool has_separator) {
  set_log(log_level_of(arguments.common.log_level, arguments.common.quiet), /*speaks=*/true);
  check_tokenize_arguments(arguments, prints_ids, has_separator);
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(arguments.tokenizer);

  const auto begin = std::chrono::steady_clock::now();
  const TokenizeResult result = prints_ids         ? print_ids(arguments.ids, *tokenizer)
                                : arguments.decode ? decode_file(arguments, *tokenizer)
                                                   : encode_file(arguments, *tokenizer);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

  if (!arguments.common.json.empty()) {
    nlohmann::ordered_json json;
    json["tokens"] = result.tokens;
    json["bytes"] = result.bytes;
    json["seconds"] = seconds.count();
    write_file(arguments.common.json, json.dump(2) + "\n");
  }
  if (!prints_ids) {
    std::cout << result.tokens << " tokens, " << result.bytes << " bytes\n";
    log_line(LogLevel::info, c10::str(arguments.output, " written in ", duration_text(seconds.count())));
  }
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<TokenizeArguments>();
  CLI::App* command = app.add_subcommand("tokenize", "Turn text into token ids, and back");
  command
      ->add_option("--tokenizer", arguments->tokenizer,
                   "A folder with vocab.json and merges.txt, or bytes (byte b is id 4 + b)")
      ->required();
  command->add_option("--input", arguments->input, "The text; with --decode the token ids");
  command->add_option("--output", arguments->output,
                      "Token ids, a NumPy array (.npy) of uint16 or uint32; with --decode the text");
  CLI::Option* separator = command->add_option("--document-separator", arguments->document_separator,
                                               "Split the text here; </s> (2) follows each document");
  command->add_flag("--decode", arguments->decode, "Token ids to the bytes they stand for");
  CLI::Option* ids =
      command->add_option("--ids", arguments->ids, "Print the ids of this text, as --prompt-ids takes them");
  command->add_option("--json", arguments->common.json, "Write the result as JSON to this file");
  add_log_options(*command, arguments->common);
  command->footer(
      "Any bytes are a text, and --decode gives them back. Special tokens spelt out in it are plain text.\n"
      "Examples:\n"
      "  optp tokenize --tokenizer my-opt --input book.txt --output book.npy\n"
      "  optp tokenize --tokenizer my-opt --input corpus.txt --document-separator '<|endoftext|>' --output corpus.npy\n"
      "  optp tokenize --tokenizer my-opt --decode --input book.npy --output book.txt\n"
      "  optp tokenize --tokenizer my-opt --ids 'A photo of a cat'");
  command->callback([=, &runner] {
    runner = [=](const std::vector<std::string>&) {
      return run_tokenize(*arguments, /*prints_ids=*/ids->count() > 0, /*has_separator=*/separator->count() > 0);
    };
  });
}

}  // namespace optp::cli

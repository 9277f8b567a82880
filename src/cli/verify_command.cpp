// optp verify
#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <memory>
#include <sstream>

#include "src/checkpoint/model_source.h"
#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/cli/number_checks.h"
#include "src/data/tokenizer.h"
#include "src/log.h"
#include "src/verify/bfloat16.h"
#include "src/verify/checks.h"
#include "src/verify/faults.h"
#include "src/verify/report.h"
#include "src/verify/verify.h"

namespace optp::cli {
namespace {

struct VerifyArguments {
  CommonOptions common{.model = "opt-125m", .tp = 2};
  VerifyOptions options;
  std::string checks = "all";
  std::string report = "opt125m_test_report.txt";
  std::string html, junit, text;
  std::optional<int64_t> fault_layer;
  std::optional<double> forward_tolerance, loss_tolerance;
  bool list_checks = false;
  bool list_faults = false;
};

std::vector<std::string> chosen_checks(const std::string& list) {
  if (list == "all") return check_names();
  std::vector<std::string> asked;
  std::istringstream stream(list);
  for (std::string name; std::getline(stream, name, ',');) {
    if (name == "legacy") name = "end-to-end";
    const auto& known = check_names();
    TORCH_CHECK_VALUE(std::find(known.begin(), known.end(), name) != known.end(), "--checks: \"", name,
                      "\" is no check; `optp verify --list-checks` prints them.");
    asked.push_back(name);
  }
  TORCH_CHECK_VALUE(!asked.empty(), "--checks is empty; name checks, or use all.");
  std::vector<std::string> ordered;
  for (const std::string& name : check_names()) {
    if (std::find(asked.begin(), asked.end(), name) != asked.end()) ordered.push_back(name);
  }
  return ordered;
}

// Everything that can be wrong with the arguments is found here, before ranks are started.
VerifyOptions options_of(const VerifyArguments& arguments) {
  VerifyOptions options = arguments.options;
  options.source = model_of(arguments.common);
  options.type = dtype_of(arguments.common.dtype);
  const bool rounds = options.type == at::kBFloat16;
  TORCH_CHECK_VALUE(!rounds || !arguments.forward_tolerance,
                    "--forward-tolerance is for float32 and float64: in bfloat16 logits are held to what the reference "
                    "loses in bfloat16; leave it out.");
  options.forward_tolerance = arguments.forward_tolerance.value_or(options.forward_tolerance);
  if (rounds) options.loss_tolerance = kBFloat16LossTolerance;
  options.loss_tolerance = arguments.loss_tolerance.value_or(options.loss_tolerance);
  options.seed = arguments.common.seed;
  options.checks = chosen_checks(arguments.checks);
  options.trace_layers = arguments.common.log_level == "debug";
  if (!arguments.text.empty()) {
    options.text = open_tokenizer("bytes")->encode(read_text_file(arguments.text));
    TORCH_CHECK_VALUE(!options.text.empty(), arguments.text, " is empty; pass a text with something in it.");
  }
  const int64_t layers = options.source.config.num_hidden_layers();
  options.fault_layer = arguments.fault_layer.value_or(layers / 2);
  TORCH_CHECK_VALUE(options.fault_layer < layers, "--inject-layer ", options.fault_layer,
                    ": the model has layers 0 to ", layers - 1, ".");
  return options;
}

// A fault in what the options leave out turns that on.
void make_room_for_fault(VerifyArguments& arguments) {
  VerifyOptions& options = arguments.options;
  if (needs_copies(options.fault) && arguments.common.dp == 1) arguments.common.dp = 2;
  if (needs_sequence_parallel(options.fault)) options.sequence_parallel = true;
  if (loses_micro_batch(options.fault) && options.micro_batch_size == 0) options.micro_batch_size = 1;
}

int run_verify(VerifyArguments& arguments, const std::vector<std::string>& program) {
  if (arguments.list_checks || arguments.list_faults) {
    if (arguments.list_checks) {
      for (const std::string& name : check_names()) std::cout << name << "\n";
    }
    if (arguments.list_faults) {
      for (const Fault& fault : faults()) std::cout << fault.name << "\n";
    }
    return 0;
  }
  make_room_for_fault(arguments);
  const VerifyOptions options = options_of(arguments);
  const Participation participation = join(arguments.common, program);
  if (participation.exit_status) return *participation.exit_status;

  const VerifyReport report = run_verification(options, participation.mesh);
  if (participation.mesh.world().rank() == 0) {
    std::cout << report_text(report);
    write_file(arguments.report, report_text(report));
    if (!arguments.html.empty()) write_file(arguments.html, report_html(report));
    if (!arguments.junit.empty()) write_file(arguments.junit, report_junit(report));
    if (!arguments.common.json.empty()) write_file(arguments.common.json, report_json(report));
    log_line(LogLevel::info, "report written to " + arguments.report);
  }
  participation.mesh.world().barrier("verify end");
  return report.passed() ? 0 : 1;
}

}  // namespace

void add_verify(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command = app.add_subcommand("verify", "Check the sharded model against a single-process reference");
  add_common_options(*command, arguments->common, {"float32", "bfloat16", "float64"});
  add_dp_option(*command, arguments->common);
  VerifyOptions& options = arguments->options;
  command->add_option("--checks", arguments->checks, "all, or a list: forward,backward,...")->capture_default_str();
  command->add_flag("--list-checks", arguments->list_checks, "Print the checks, one a line");
  command->add_option("--report", arguments->report, "The report")->capture_default_str();
  command->add_option("--html", arguments->html, "The report as a page");
  command->add_option("--junit", arguments->junit, "The report as JUnit XML");
  command->add_option("--text", arguments->text, "Use this text, bytes as tokens, in place of random ids");
  command->add_option("--batch-size", options.batch_size, "Sequences, over all copies")
      ->check(kPositive)
      ->capture_default_str();
  command->add_option("--seq-len", options.seq_len, "Tokens of a sequence")->check(kPositive)->capture_default_str();
  command->add_option("--epochs", options.epochs, "Epochs of the check stability (default: 3, or more until it falls)")
      ->check(CLI::Range(2, 1000));

  const char* training = "As trained";
  command
      ->add_option("--micro-batch-size", options.micro_batch_size,
                   "Sequences that a copy takes at once (default: its whole part of the batch)")
      ->check(kPositive)
      ->group(training);
  command->add_flag("--sequence-parallel", options.sequence_parallel, "As in optp train")->group(training);
  command->add_flag("--activation-checkpointing", options.activation_checkpointing, "As in optp train")
      ->group(training);

  const char* limits = "Limits";
  command
      ->add_option("--forward-tolerance", arguments->forward_tolerance,
                   "Logits (default: 1e-05; bfloat16 has a limit of its own, which the report states)")
      ->check(kPositive)
      ->group(limits);
  command->add_option("--loss-tolerance", arguments->loss_tolerance, "Losses (default: 0.001; in bfloat16 0.02)")
      ->check(kPositive)
      ->group(limits);
  command->add_option("--max-memory-overhead", options.max_memory_overhead, "Sum of the shards over the whole, minus 1")
      ->check(kNonNegative)
      ->capture_default_str()
      ->group(limits);

  const char* sabotage = "Sabotage";
  std::vector<std::string> fault_names;
  for (const Fault& fault : faults()) fault_names.push_back(fault.name);
  command->add_option("--inject", options.fault, "Break the sharded model on purpose; the run must then fail")
      ->check(CLI::IsMember(fault_names))
      ->type_name("FAULT")
      ->group(sabotage);
  command->add_option("--inject-layer", arguments->fault_layer, "Decoder layer of the fault (default: the middle)")
      ->check(kNonNegative)
      ->group(sabotage);
  command->add_flag("--list-faults", arguments->list_faults, "Print the faults, one a line")->group(sabotage);
  command->footer(
      "Examples:\n"
      "  optp verify                                   OPT-125M, all checks, two processes\n"
      "  optp verify --num-layers 2 --hidden-size 128  the same in seconds\n"
      "  optp verify --model my-opt --tp 4 --text book.txt --html report.html\n"
      "  optp verify --dtype float64 --checks forward,backward   the same comparison free of rounding\n"
      "  optp verify --tp 2 --dp 2 --batch-size 8 --micro-batch-size 2 --sequence-parallel   as a run would train\n"
      "  optp verify --checks forward --inject bias-on-every-rank --log-level debug");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& program) { return run_verify(*arguments, program); };
  });
}

}  // namespace optp::cli

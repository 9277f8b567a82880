#include "src/verify/verify.h"

#include <sys/utsname.h>
#include <torch/version.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <thread>

#include "src/log.h"
#include "src/verify/checks.h"
#include "src/verify/faults.h"
#include "src/verify/report_words.h"
#include "src/version.h"

namespace optp {
namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::string local_time() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", std::localtime(&now));
  return text;
}

// "sequence parallelism, micro-batches of 2"; empty where all is plain.
std::string training_words(const VerifyOptions& options) {
  std::vector<std::string> words;
  if (options.sequence_parallel) words.emplace_back("sequence parallelism");
  if (options.activation_checkpointing) words.emplace_back("activation checkpointing");
  if (options.micro_batch_size > 0) words.push_back(c10::str("micro-batches of ", options.micro_batch_size));
  return joined(words);
}

std::string dtype_word(at::ScalarType type) {
  return type == at::kDouble ? "float64" : type == at::kBFloat16 ? "bfloat16" : "float32";
}

std::string arithmetic_words(const VerifyOptions& options) {
  if (options.type != at::kBFloat16) return dtype_word(options.type);
  return "bfloat16 with float32 reductions and master weights. Limits: three times as far from a float32 reference as "
         "this reference is in bfloat16, at least 1/64; losses within " +
         number_text(options.loss_tolerance);
}

std::vector<std::pair<std::string, std::string>> facts_of(const VerifyOptions& options, const Mesh& mesh) {
  utsname system{};
  uname(&system);
  const OptConfig& config = options.source.config;
  std::vector<std::pair<std::string, std::string>> facts;
  facts.emplace_back("Machine", c10::str(processor_name(), ", ", std::thread::hardware_concurrency(), " cores, ",
                                         system.sysname, " ", system.release, " ", system.machine));
  facts.emplace_back("Versions", c10::str("optp ", kVersion, ", LibTorch ", TORCH_VERSION, ", g++ ", __VERSION__));
  facts.emplace_back(
      "Model", c10::str(options.source.name, ": ", config.num_hidden_layers(), " layers, hidden ", config.hidden_size(),
                        ", ", config.num_attention_heads(), " heads, ffn ", config.ffn_dim(), ", vocabulary ",
                        config.vocab_size(), ", ", config.num_parameters(), " parameters"));
  facts.emplace_back("Weights", options.source.path ? options.source.path->string()
                                                    : c10::str("fresh, seed ", options.seed,
                                                               ", drawn so that a mistake in any part shows"));
  const std::string backend = mesh.world().backend_name();
  facts.emplace_back("Mesh", c10::str("tp ", mesh.tensor().size(), " x dp ", mesh.data().size(), ", a process a rank",
                                      backend == "gloo"  ? ", over Gloo"
                                      : backend == "shm" ? ", over shared memory"
                                                         : ""));
  const std::string trained_as = training_words(options);
  if (!trained_as.empty()) facts.emplace_back("Trained", trained_as);
  facts.emplace_back("Arithmetic", arithmetic_words(options));
  facts.emplace_back(
      "Inputs", c10::str(options.batch_size, " x ", options.seq_len, " tokens, ",
                         options.text.empty() ? "random ids" : c10::str("bytes of a text of ", options.text.size())));
  return facts;
}

}  // namespace

VerifyReport run_verification(const VerifyOptions& options, const Mesh& mesh) {
  TORCH_CHECK_VALUE(options.seq_len >= 2 && options.seq_len <= options.source.config.max_position_embeddings(),
                    "--seq-len ", options.seq_len, " does not fit the model; use 2 to ",
                    options.source.config.max_position_embeddings(), ".");
  for (const int64_t id : options.text) {
    TORCH_CHECK_VALUE(id < options.source.config.vocab_size(), "the text has token ", id, ", beyond the vocabulary of ",
                      options.source.config.vocab_size(), "; use a larger --vocab-size.");
  }
  TORCH_CHECK_VALUE(options.batch_size >= mesh.data().size(), "--batch-size ", options.batch_size,
                    " gives not every one of ", mesh.data().size(), " copies a sequence; use at least ",
                    mesh.data().size(), ".");
  TORCH_CHECK_VALUE(
      !loses_micro_batch(options.fault) ||
          (options.micro_batch_size > 0 && options.micro_batch_size < options.batch_size / mesh.data().size()),
      "a micro-batch can be lost only where a copy takes two or more; use a larger --batch-size or a "
      "smaller --micro-batch-size.");
  const auto begin = std::chrono::steady_clock::now();
  VerifyReport report;
  report.facts = facts_of(options, mesh);
  report.model = options.source.name;
  report.dtype = dtype_word(options.type);
  report.fault = options.fault;
  report.tp = mesh.tensor().size();
  report.dp = mesh.data().size();
  log_line(LogLevel::info, c10::str("verifying ", report.model, " (", options.source.config.num_parameters(),
                                    " parameters) on ", mesh.world().size(), " ranks in ", report.dtype));
  Session session(options, mesh);
  for (const std::string& name : options.checks) {
    log_line(LogLevel::info, "checking " + name + " ...");
    mesh.watch().set_progress("check " + name);
    CheckResult result = run_check(name, session);
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.1f s", result.seconds);
    std::string line = std::string(result.passed() ? "  PASS  " : "  FAIL  ") + name + ", " + seconds;
    if (!result.passed()) line += ", " + failure_summary(result);
    log_line(LogLevel::info, line);
    report.checks.push_back(std::move(result));
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  report.finished_at = local_time();
  return report;
}

}  // namespace optp

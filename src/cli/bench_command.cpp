// optp bench
#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>
#include <set>

#include "src/bench/collectives.h"
#include "src/bench/workloads.h"
#include "src/cli/commands.h"
#include "src/cli/common_options.h"
#include "src/cli/number_checks.h"
#include "src/cli/texts_option.h"
#include "src/log.h"
#include "src/process_memory.h"

namespace optp::cli {
namespace {

struct BenchArguments {
  CommonOptions common;
  std::vector<std::string> workloads;
  std::optional<int64_t> batch_size, seq_len;
  int64_t iterations = 0;  // 0: each workload's own
};

// One measurement of a model: `run` with these sizes.
struct Workload {
  std::string name;
  WorkloadResult (*run)(const Mesh& mesh, const WorkloadOptions& options);
  int64_t batch_size, seq_len, iterations;
  bool trains = false;
};

const std::vector<Workload>& workloads() {
  static const std::vector<Workload> all{{"forward", bench_forward, 4, 256, 5},
                                         {"train", bench_train, 4, 256, 3, /*trains=*/true},
                                         {"decode", bench_decode, 1, 32, 3},
                                         {"decode", bench_decode, 8, 32, 3}};
  return all;
}

// Prints lines as they come, on rank 0, and keeps them for --json.
class Lines {
 public:
  explicit Lines(const Mesh& mesh) : speaks_(mesh.world().rank() == 0) {}

  void add(const nlohmann::ordered_json& line) {
    if (!speaks_) return;
    std::cout << line.dump() << "\n" << std::flush;
    text_ += line.dump() + "\n";
  }
  void write_to(const std::string& path) const {
    if (speaks_ && !path.empty()) write_file(path, text_);
  }

 private:
  bool speaks_;
  std::string text_;
};

nlohmann::ordered_json line_of(const Workload& workload, const WorkloadOptions& options, const WorkloadResult& result,
                               const BenchArguments& arguments, const Mesh& mesh) {
  const Measurement& measurement = result.measurement;
  nlohmann::ordered_json line;
  line["workload"] = workload.name;
  line["model"] = options.model.name;
  line["batch_size"] = options.batch_size;
  line["seq_len"] = options.seq_len;
  line["ranks"] = mesh.world().size();
  line["threads"] = at::get_num_threads();
  line["backend"] = mesh.tensor().backend_name();
  line["dtype"] = arguments.common.dtype;
  line["weights"] =
      workload.trains ? arguments.common.dtype : arguments.common.weights.value_or(arguments.common.dtype);
  line["tokens_per_second"] = static_cast<double>(result.tokens) / measurement.median();
  line["milliseconds"] = measurement.median() * 1e3;
  line["milliseconds_min"] = measurement.seconds.front() * 1e3;
  line["milliseconds_max"] = measurement.seconds.back() * 1e3;
  line["iterations"] = options.iterations;
  line["peak_rss_bytes"] = measurement.peak_rss_bytes;
  line["comm_fraction"] = measurement.comm_fraction;
  line["check"] = result.check;
  return line;
}

int run_bench(const BenchArguments& arguments, const std::vector<std::string>& program) {
  const at::ScalarType weights = weights_of(arguments.common);
  const ModelSource source = model_of(arguments.common);
  const std::set<std::string> chosen(arguments.workloads.begin(), arguments.workloads.end());
  TORCH_CHECK_VALUE(!chosen.contains("comm") || arguments.common.tp > 1,
                    "one rank has nobody to talk to; ask for comm with --tp 2 or more.");
  const Participation participation = join(arguments.common, program);
  if (participation.exit_status) return *participation.exit_status;
  keep_freed_memory();
  const Mesh& mesh = participation.mesh;

  Lines lines(mesh);
  for (const Workload& workload : workloads()) {
    if (!chosen.empty() && !chosen.contains(workload.name)) continue;
    const WorkloadOptions options{.model = source,
                                  .seed = arguments.common.seed,
                                  .dtype = dtype_of(arguments.common.dtype),
                                  .weights = weights,
                                  .batch_size = arguments.batch_size.value_or(workload.batch_size),
                                  .seq_len = arguments.seq_len.value_or(workload.seq_len),
                                  .iterations = arguments.iterations > 0 ? arguments.iterations : workload.iterations};
    mesh.watch().set_progress("workload " + workload.name);
    log_line(LogLevel::info, c10::str("measuring ", workload.name, ", batch ", options.batch_size, " x ",
                                      options.seq_len, " tokens, ", options.iterations, " times"));
    lines.add(line_of(workload, options, workload.run(mesh, options), arguments, mesh));
    if (workload.name == "decode" && arguments.batch_size) break;  // the second decode differs in its batch alone
  }
  if (chosen.contains("comm") || (chosen.empty() && mesh.tensor().size() > 1)) {
    log_line(LogLevel::info, "measuring collectives");
    mesh.watch().set_progress("workload comm");
    bench_collectives(mesh, arguments.iterations, [&](const CollectiveTime& time) {
      lines.add({{"workload", "comm"},
                 {"ranks", mesh.tensor().size()},
                 {"operation", time.operation},
                 {"bytes", time.bytes},
                 {"microseconds", time.microseconds},
                 {"backend", mesh.tensor().backend_name()}});
    });
  }
  lines.write_to(arguments.common.json);
  mesh.world().barrier("bench end");
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Runner& runner) {
  auto arguments = std::make_shared<BenchArguments>();
  arguments->common.model = "opt-125m";
  CLI::App* command = app.add_subcommand("bench", "Measure speed");
  add_common_options(*command, arguments->common, {"float32", "bfloat16", "float64"});
  add_weights_option(*command, arguments->common);
  add_texts_option(
      *command, "--workload", arguments->workloads,
      "forward: to logits, 4 x 256 tokens; train: a step of AdamW on them; decode: 64 new tokens after 32,\n"
      "batch 1 and 8; comm: collectives by size (default: all)")
      ->check(CLI::IsMember({"forward", "train", "decode", "comm"}))
      ->type_name("NAME ...");
  command->add_option("--iterations", arguments->iterations, "Times that each is measured (default: 3 to 5)")
      ->check(kPositive);
  command->add_option("--batch-size", arguments->batch_size, "Sequences, in place of the workload's own")
      ->check(kPositive);
  command->add_option("--seq-len", arguments->seq_len, "Tokens of a sequence or a prompt, in place of the workload's")
      ->check(CLI::Range(2, 1 << 20));
  command->footer(
      "One JSON object a line: median, least and most time of an iteration, tokens a second, peak memory of the "
      "largest\n"
      "rank, share of time in collectives, and check values that any program on the same weights must give.\n"
      "Let nothing else run meanwhile, and compare only figures that were measured in turns.\n"
      "\n"
      "Examples:\n"
      "  optp bench --model my-opt --tp 2\n"
      "  optp bench --model opt-350m --workload train --iterations 5\n"
      "  optp bench --workload decode --weights int8\n"
      "  optp bench --workload comm --tp 2 --comm gloo");
  command->callback([arguments, &runner] {
    runner = [arguments](const std::vector<std::string>& program) { return run_bench(*arguments, program); };
  });
}

}  // namespace optp::cli

// A plan for people and for programs.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <string_view>

#include "src/plan/plan.h"
#include "src/train/units.h"

namespace optp {
namespace {

// 1234567 -> "1,234,567"
std::string grouped(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

// Columns as wide as they need to be; the first `left` of them start at the left, numbers end at the right.
std::string table(const std::vector<std::vector<std::string>>& rows, size_t left) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      line += (i == 0 ? "" : "  ") + (i < left ? row[i] + padding : padding + row[i]);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

// "model.decoder.layers.3.fc2 forward" -> "model.decoder.layers.*.fc2 forward"
std::string of_all_layers(const std::string& site) {
  const std::string prefix = "model.decoder.layers.";
  if (!site.starts_with(prefix)) return site;
  return prefix + "*" + site.substr(site.find_first_not_of("0123456789", prefix.size()));
}

std::string type_name(at::ScalarType type) { return std::string(c10::getDtypeNames(type).first); }

}  // namespace

std::string plan_text(const PlanOptions& options, const Plan& plan) {
  const TrainingShape& shape = options.shape;
  std::string text = grouped(plan.parameters) + " parameters, " + type_name(options.type) + ", " +
                     std::string(optimizer_name(options.optimizer.kind())) + "; tp " + std::to_string(options.tp) +
                     " x dp " + std::to_string(options.dp) + "; a step of " + std::to_string(shape.batch_size) + " x " +
                     std::to_string(shape.seq_len) + " tokens, " + std::to_string(shape.rows(options.dp, 0)) +
                     " sequences at once on a rank";
  if (shape.activation_checkpointing) text += ", activation checkpointing";
  if (shape.sequence_parallel) text += ", sequence parallelism";
  for (const std::string& pattern : options.freeze) text += ", frozen " + pattern;
  text += "\n\n";

  std::vector<std::vector<std::string>> ranks{
      {"rank", "parameters", "weights", "gradients", "optimizer", "activations", "peak"}};
  for (const RankPlan& rank : plan.ranks) {
    ranks.push_back({std::to_string(rank.rank), grouped(rank.parameters), memory_text(rank.parameter_bytes),
                     memory_text(rank.gradient_bytes), memory_text(rank.optimizer_bytes),
                     memory_text(rank.activation_bytes), memory_text(rank.peak_bytes)});
  }
  text += table(ranks, 0) + "\n";

  if (plan.collectives.empty()) return text + "One rank sends nothing.\n";
  std::vector<PlannedCollective> lines;
  int64_t calls = 0, bytes = 0;
  for (const PlannedCollective& entry : plan.collectives) {
    add_collective(lines, of_all_layers(entry.site), entry.operation, entry.calls, entry.bytes);
    calls += entry.calls;
    bytes += entry.bytes;
  }
  std::vector<std::vector<std::string>> sites{{"collectives of a step", "operation", "calls", "bytes"}};
  for (const PlannedCollective& line : lines) {
    sites.push_back({line.site, line.operation, grouped(line.calls), memory_text(line.bytes)});
  }
  sites.push_back({"all", "", grouped(calls), memory_text(bytes)});
  return text + table(sites, 2);
}

std::string plan_json(const PlanOptions& options, const Plan& plan) {
  nlohmann::ordered_json result;
  result["parameters"] = plan.parameters;
  result["tp"] = options.tp;
  result["dp"] = options.dp;
  result["dtype"] = type_name(options.type);
  result["collectives"] = nlohmann::ordered_json::array();
  for (const PlannedCollective& entry : plan.collectives) {
    result["collectives"].push_back(
        {{"site", entry.site}, {"operation", entry.operation}, {"calls", entry.calls}, {"bytes", entry.bytes}});
  }
  // Ranks go straight into the text, a line each: of a hundred thousand, values of JSON would take 100 MB.
  std::string text = result.dump(2);
  text.resize(text.size() - std::string_view("\n}").size());
  text.reserve(text.size() + plan.ranks.size() * 224);
  const char* separator = ",\n  \"ranks\": [\n    ";
  for (const RankPlan& rank : plan.ranks) {
    const nlohmann::ordered_json line{{"rank", rank.rank},
                                      {"parameters", rank.parameters},
                                      {"parameter_bytes", rank.parameter_bytes},
                                      {"gradient_bytes", rank.gradient_bytes},
                                      {"optimizer_bytes", rank.optimizer_bytes},
                                      {"activation_bytes", rank.activation_bytes},
                                      {"peak_bytes", rank.peak_bytes}};
    text += separator + line.dump();
    separator = ",\n    ";
  }
  text += "\n  ]\n}\n";
  return text;
}

}  // namespace optp

#include "src/train/metrics.h"

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "src/checkpoint/atomic_file.h"

namespace optp {
namespace {

using nlohmann::json;

// The lines up to `last_step`; the file then holds those alone.
std::vector<StepMetrics> keep_metrics(const std::filesystem::path& path, int64_t last_step) {
  std::vector<StepMetrics> kept;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return kept;
  std::string text;
  bool dropped = false;
  int64_t line_number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++line_number;
    if (stream.eof()) {  // no newline: its writer was killed
      dropped = true;
      break;
    }
    try {
      const StepMetrics metrics = parse_metrics(line);
      if (metrics.step > last_step) {
        dropped = true;
        continue;
      }
      kept.push_back(metrics);
    } catch (const json::exception&) {
      TORCH_CHECK_VALUE(false, path.string(), ": line ", line_number,
                        " holds no metrics of a step; repair or remove the file.");
    }
    text += line + "\n";
  }
  if (dropped) {
    AtomicFile file(path, /*mode=*/0600);
    file.write(text.data(), text.size());
    file.commit();
  }
  return kept;
}

}  // namespace

std::optional<double> StepMetrics::val_perplexity() const {
  if (!val_loss) return std::nullopt;
  return std::exp(*val_loss);
}

std::string metrics_line(const StepMetrics& metrics) {
  nlohmann::ordered_json line;
  line["step"] = metrics.step;
  line["loss"] = metrics.loss;
  line["lr"] = metrics.lr;
  line["grad_norm"] = metrics.grad_norm;
  line["tokens"] = metrics.tokens;
  line["tokens_per_second"] = metrics.tokens_per_second;
  line["step_seconds"] = metrics.step_seconds;
  line["comm_seconds"] = metrics.comm_seconds;
  line["peak_rss_bytes"] = metrics.peak_rss_bytes;
  if (metrics.skipped) line["skipped"] = true;
  if (metrics.val_loss) {
    line["val_loss"] = *metrics.val_loss;
    line["val_perplexity"] = *metrics.val_perplexity();
  }
  return line.dump();
}

StepMetrics parse_metrics(const std::string& text) {
  const json line = json::parse(text);
  // The library takes any number for a whole one, and is undefined where it does not fit.
  const auto count = [&](const char* key) {
    constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return static_cast<int64_t>(std::min(line.at(key).get_ref<const uint64_t&>(), kMost));
  };
  const auto number = [&](const char* key) {
    const json& value = line.at(key);
    return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  };
  StepMetrics metrics{.step = count("step"),
                      .loss = number("loss"),
                      .lr = number("lr"),
                      .grad_norm = number("grad_norm"),
                      .tokens = count("tokens"),
                      .tokens_per_second = number("tokens_per_second"),
                      .step_seconds = number("step_seconds"),
                      .comm_seconds = number("comm_seconds"),
                      .peak_rss_bytes = count("peak_rss_bytes"),
                      .skipped = line.value("skipped", false)};
  if (line.contains("val_loss")) metrics.val_loss = number("val_loss");
  return metrics;
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t last_step)
    : history_(keep_metrics(path, last_step)), file_(path) {}

void MetricsFile::append(const StepMetrics& metrics) { file_.append(metrics_line(metrics) + "\n"); }

}  // namespace optp

#include "src/train/trainer_state.h"

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>

namespace optp {

std::string to_json(const TrainerState& state) {
  nlohmann::ordered_json json;
  json["step"] = state.step;
  json["tokens"] = state.tokens;
  json["skipped_steps"] = state.skipped_steps;
  json["skipped_in_a_row"] = state.skipped_in_a_row;
  json["seconds"] = state.seconds;
  if (state.to_evaluate) json["to_evaluate"] = metrics_line(*state.to_evaluate);
  json["identity"] = state.identity;
  return json.dump();
}

TrainerState trainer_state_from_json(const std::string& text, const std::string& source) {
  try {
    const auto json = nlohmann::json::parse(text);
    // The library takes any number for a whole one, and is undefined where it does not fit.
    const auto count = [&](const char* key) {
      constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
      return static_cast<int64_t>(std::min(json.at(key).get_ref<const uint64_t&>(), kMost));
    };
    TrainerState state{.step = count("step"),
                       .tokens = count("tokens"),
                       .skipped_steps = count("skipped_steps"),
                       .skipped_in_a_row = count("skipped_in_a_row"),
                       .seconds = json.at("seconds").get<double>(),
                       .identity = json.at("identity").get<RunIdentity>()};
    if (json.contains("to_evaluate")) state.to_evaluate = parse_metrics(json.at("to_evaluate").get<std::string>());
    return state;
  } catch (const nlohmann::json::exception&) {
    TORCH_CHECK_VALUE(false, source, " holds no state of a training run, which --resume needs; it has weights alone.");
  }
}

void check_identity(const RunIdentity& run, const RunIdentity& checkpoint, const std::string& source) {
  for (const auto& [name, value] : run) {
    const auto found = checkpoint.find(name);
    const std::string before = found == checkpoint.end() ? "unknown" : found->second;
    TORCH_CHECK_VALUE(before == value, source, " belongs to another run: its ", name, " is ", before, ", not ", value,
                      "; resume with what it began with, or use another --output.");
  }
}

}  // namespace optp

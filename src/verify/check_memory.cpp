// Check "memory": what each rank holds, and what sharding costs.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <string>

#include "src/process_memory.h"
#include "src/verify/checks.h"

namespace optp {
namespace {

constexpr double kMiB = 1 << 20;

// `value` of every rank, in rank order. Collective.
std::vector<double> from_all_ranks(double value, const ProcessGroup& group) {
  at::Tensor all = at::zeros({group.size()}, at::kDouble);
  all[group.rank()] = value;
  group.all_reduce_(all, "verify figures");
  return {all.data_ptr<double>(), all.data_ptr<double>() + all.numel()};
}

std::string listed(const std::vector<double>& values, double unit = 1) {
  std::string text;
  for (const double value : values) {
    char number[32];
    std::snprintf(number, sizeof number, unit == 1 ? "%.0f" : "%.1f", value / unit);
    text += (text.empty() ? "" : ", ") + std::string(number);
  }
  return text;
}

// Two training steps that were taken before there was a reference, held to what the plan says of them.
class TrialRows {
 public:
  TrialRows(const MemoryTrial& trial, const ProcessGroup& world) : trial_(trial), world_(world) {}

  Measurements all() const {
    Measurements rows;
    rows.push_back(exact("parameters beside the plan", trial_.planned.parameters, trial_.parameters));
    rows.push_back(
        exact("bytes of parameters beside the plan", trial_.planned.parameter_bytes, trial_.parameter_bytes));
    rows.push_back(exact("bytes of gradients beside the plan", trial_.planned.gradient_bytes, trial_.gradient_bytes));
    rows.push_back(
        exact("bytes of AdamW's state beside the plan", trial_.planned.optimizer_bytes, trial_.optimizer_bytes));
    rows.push_back(collectives());
    rows.push_back(memory());
    return rows;
  }

 private:
  Measurement exact(const std::string& what, int64_t planned, int64_t built) const {
    const auto plan = from_all_ranks(static_cast<double>(planned), world_);
    const auto found = from_all_ranks(static_cast<double>(built), world_);
    double difference = 0;
    for (size_t rank = 0; rank < plan.size(); ++rank)
      difference = std::max(difference, std::abs(found[rank] - plan[rank]));
    return measure(what, difference, 0, "by rank: planned " + listed(plan) + "; built " + listed(found));
  }

  // Sites whose calls or bytes are not as planned, on the rank that has most of them.
  Measurement collectives() const {
    std::map<std::string, std::array<int64_t, 4>> sites;  // calls and bytes: planned, made
    for (const PlannedCollective& entry : trial_.planned_collectives) {
      sites[entry.site][0] = entry.calls;
      sites[entry.site][1] = entry.bytes;
    }
    for (const PlannedCollective& entry : trial_.collectives) {
      sites[entry.site][2] = entry.calls;
      sites[entry.site][3] = entry.bytes;
    }
    double unlike = 0, planned = 0, sent = 0;
    std::string first;
    for (const auto& [site, n] : sites) {
      planned += static_cast<double>(n[1]);
      sent += static_cast<double>(n[3]);
      if (n[0] == n[2] && n[1] == n[3]) continue;
      if (unlike++ == 0) {
        first = c10::str("; first ", site, ": planned ", n[0], " calls of ", n[1], " bytes, made ", n[2], " of ", n[3]);
      }
    }
    const auto of_ranks = from_all_ranks(unlike, world_);
    const auto plan = from_all_ranks(planned, world_), found = from_all_ranks(sent, world_);
    return measure("sites whose collectives are not the plan's", *std::max_element(of_ranks.begin(), of_ranks.end()), 0,
                   c10::str(sites.size(), " sites; bytes of a step by rank: planned ", listed(plan), "; sent ",
                            listed(found), first));
  }

  // The rank that is furthest from its plan for its limit.
  Measurement memory() const {
    const auto plan = from_all_ranks(static_cast<double>(trial_.planned.peak_bytes), world_);
    const auto found = from_all_ranks(static_cast<double>(trial_.peak_bytes), world_);
    double value = 0, limit = 0, worst = -1;
    for (size_t rank = 0; rank < plan.size(); ++rank) {
      const double difference = std::abs(found[rank] - plan[rank]), allowed = 0.15 * plan[rank] + 64 * kMiB;
      if (difference / allowed <= worst) continue;
      worst = difference / allowed;
      value = difference / kMiB;
      limit = allowed / kMiB;
    }
    return measure("memory of two training steps beside the plan, MiB", value, limit,
                   "MiB by rank: planned " + listed(plan, kMiB) + "; measured " + listed(found, kMiB) +
                       ", the growth of anonymous memory over the start, without the reference; limit 15 % + 64 MiB");
  }

  const MemoryTrial& trial_;
  const ProcessGroup& world_;
};

}  // namespace

Measurements check_memory(Session& session) {
  const auto element = static_cast<double>(c10::elementSize(session.options().type));
  double held = 0, replicated = 0;
  for (const NamedShard& entry : session.shards()) {
    held += static_cast<double>(entry.tensor.numel());
    if (entry.shard.replicated()) replicated += static_cast<double>(entry.tensor.numel());
  }
  const auto& world = session.world();
  const std::vector<double> shards = from_all_ranks(held, world);
  const std::vector<double> built = from_all_ranks(static_cast<double>(session.model_bytes()), world);
  const std::vector<double> resident = from_all_ranks(static_cast<double>(anonymous_resident_bytes()), world);
  const auto whole = static_cast<double>(session.config().num_parameters());
  const double sum = std::accumulate(shards.begin(), shards.end(), 0.0);
  const double largest = *std::max_element(shards.begin(), shards.end());

  // Every element of the whole has an owner: sharded parts add up, replicated ones count once.
  const auto degree = static_cast<double>(session.mesh().tensor().size());
  const double copy = sum / static_cast<double>(session.mesh().data().size());  // what one copy of the model holds
  const double covered = copy - (degree - 1) * replicated;
  Measurements rows{measure("parameters of the whole that no rank or several own", std::abs(covered - whole), 0,
                            full_number(whole) + " in the whole model; by rank: " + listed(shards))};
  rows.push_back(measure("overhead of the sum over the whole", copy / whole - 1, session.options().max_memory_overhead,
                         full_number(replicated) + " parameters are held by every rank"));
  rows.push_back(measure("largest shard over the mean", largest / (sum / static_cast<double>(shards.size())), 1.5));

  double excess = 0;
  for (size_t rank = 0; rank < shards.size(); ++rank) excess = std::max(excess, built[rank] - shards[rank] * element);
  rows.push_back(measure("bytes alive after building the model beyond the shards", excess, 65536,
                         "MiB by rank: " + listed(built, kMiB)));
  for (Measurement& row : TrialRows(*session.memory_trial(), world).all()) rows.push_back(std::move(row));
  Measurement row = measure("anonymous memory of the largest process, MiB",
                            *std::max_element(resident.begin(), resident.end()) / kMiB, INFINITY,
                            "MiB by rank: " + listed(resident, kMiB) + " (rank 0 also holds the reference)");
  rows.push_back(row);
  return rows;
}

}  // namespace optp

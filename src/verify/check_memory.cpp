// Check "memory": what each rank holds, and what sharding costs.
#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "src/process_memory.h"
#include "src/verify/checks.h"

namespace optp {
namespace {

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

}  // namespace

Measurements check_memory(Session& session) {
  constexpr double kMiB = 1 << 20;
  const auto element = static_cast<double>(c10::elementSize(session.options().type));
  double held = 0, replicated = 0;
  std::map<const void*, double> storages;  // a storage that several tensors share counts once
  for (const NamedShard& entry : session.shards()) {
    held += static_cast<double>(entry.tensor.numel());
    if (entry.shard.replicated()) replicated += static_cast<double>(entry.tensor.numel());
    storages[entry.tensor.storage().unsafeGetStorageImpl()] = static_cast<double>(entry.tensor.storage().nbytes());
  }
  const double storage_bytes = std::accumulate(storages.begin(), storages.end(), 0.0,
                                               [](double sum, const auto& entry) { return sum + entry.second; });
  const auto& world = session.world();
  const std::vector<double> shards = from_all_ranks(held, world);
  const std::vector<double> stored = from_all_ranks(storage_bytes, world);
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

  double excess_stored = 0, excess_built = 0;
  for (size_t rank = 0; rank < shards.size(); ++rank) {
    excess_stored = std::max(excess_stored, stored[rank] - shards[rank] * element);
    excess_built = std::max(excess_built, built[rank] - shards[rank] * element);
  }
  rows.push_back(measure("bytes of parameter storages beyond the shards", excess_stored, 0,
                         "MiB by rank: " + listed(stored, kMiB)));
  rows.push_back(measure("bytes alive after building the model beyond the shards", excess_built, 65536,
                         "MiB by rank: " + listed(built, kMiB)));
  Measurement row = measure("anonymous memory of the largest process, MiB",
                            *std::max_element(resident.begin(), resident.end()) / kMiB, INFINITY,
                            "MiB by rank: " + listed(resident, kMiB) + " (rank 0 also holds the reference)");
  rows.push_back(row);
  return rows;
}

}  // namespace optp

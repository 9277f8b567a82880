// Made-up tensors of a training run, cut for any mesh: every way to cut one, every dtype, bits of every kind.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/mesh.h"
#include "src/checkpoint/training_checkpoint.h"

namespace optp::testing {

/// A whole tensor and the dimension in which ranks cut it.
struct WholeTensor {
  std::string name;
  at::Tensor tensor;
  std::optional<int64_t> dim;
  int64_t block = 1;
};

/// Random bits: among them infinities, NaNs of all kinds, denormals and negative zeros.
inline at::Tensor random_bits(at::IntArrayRef shape, at::ScalarType dtype, at::Generator generator) {
  std::vector<int64_t> bytes = shape.vec();
  bytes.push_back(static_cast<int64_t>(c10::elementSize(dtype)));
  return at::randint(0, 256, bytes, generator, at::kByte).view(dtype).squeeze(-1);
}

/// Parameters of a model that is not OPT. `seed` stands for the step.
inline std::vector<WholeTensor> whole_parameters(uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto tensor = [&](const std::string& name, at::IntArrayRef shape, std::optional<int64_t> dim,
                          at::ScalarType dtype = at::kFloat, int64_t block = 1) {
    return WholeTensor{name, random_bits(shape, dtype, generator), dim, block};
  };
  return {tensor("embedding", {11, 6}, 0),
          tensor("layers.0.rows", {9, 5}, 0),
          tensor("layers.0.columns", {5, 9}, 1),
          tensor("layers.0.heads", {24, 7}, 0, at::kFloat, 6),
          tensor("layers.0.middle", {2, 8, 3}, 1, at::kDouble),
          tensor("layers.0.half", {7, 4}, 0, at::kBFloat16),
          tensor("layers.0.half_columns", {3, 5}, 1, at::kHalf),
          tensor("norm.weight", {5}, std::nullopt),
          tensor("scale \"\u00e9\"", {}, std::nullopt, at::kBFloat16),
          tensor("nothing", {0, 3}, std::nullopt)};
}

/// What an optimizer keeps of them, and numbers that are not floating-point.
inline std::vector<WholeTensor> whole_optimizer_state(uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed + 1000);
  std::vector<WholeTensor> state;
  for (const char* kind : {"exp_avg/", "exp_avg_sq/"}) {
    for (const WholeTensor& parameter : whole_parameters(seed)) {
      state.push_back({kind + parameter.name, random_bits(parameter.tensor.sizes(), at::kFloat, generator),
                       parameter.dim, parameter.block});
    }
  }
  state.push_back({"step", at::full({}, static_cast<int64_t>(seed), at::kLong), std::nullopt});
  state.push_back({"counts", at::randint(0, 200, {9, 2}, generator, at::kByte), 0});
  state.push_back({"flags", at::randint(0, 2, {6}, generator, at::kBool), 0});
  return state;
}

/// What tensor-parallel rank `part` of `parts` holds of `whole`, in memory of its own.
inline std::vector<NamedShard> cut(const std::vector<WholeTensor>& whole, int64_t part, int64_t parts) {
  std::vector<NamedShard> shards;
  for (const WholeTensor& entry : whole) {
    ParameterShard shard{.shape = entry.tensor.sizes().vec(), .dim = entry.dim, .layout = {}, .part = 0};
    if (entry.dim) {
      shard.layout = ShardLayout(entry.tensor.size(*entry.dim), parts, entry.block);
      shard.part = part;
    }
    shards.push_back({entry.name, shard.slice(entry.tensor).clone(at::MemoryFormat::Contiguous), shard});
  }
  return shards;
}

/// The same shards, with memory that holds something else.
inline std::vector<NamedShard> cut_empty(const std::vector<WholeTensor>& whole, int64_t part, int64_t parts) {
  std::vector<NamedShard> shards = cut(whole, part, parts);
  for (NamedShard& shard : shards) shard.tensor = at::ones_like(shard.tensor);
  return shards;
}

/// Bit for bit, NaNs included. (No bytes may have no address, which memcmp does not take.)
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  return a.nbytes() == 0 ||
         std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0;
}

/// The name of the first shard in which the two differ; empty: in none.
inline std::string difference(const std::vector<NamedShard>& a, const std::vector<NamedShard>& b) {
  if (a.size() != b.size()) return "the number of tensors";
  for (size_t i = 0; i < a.size(); ++i) {
    if (!same_bits(a[i].tensor, b[i].tensor)) return a[i].name;
  }
  return "";
}

inline std::string trainer_state(uint64_t seed) { return R"({"step": )" + std::to_string(seed) + R"(, "lr": 0.1})"; }

inline CheckpointContent content_of(uint64_t seed, const Mesh& mesh = Mesh()) {
  const int64_t rank = mesh.tensor().rank();
  const int64_t tp = mesh.tensor().size();
  return {R"({"model_type": "other"})", cut(whole_parameters(seed), rank, tp),
          cut(whole_optimizer_state(seed), rank, tp), trainer_state(seed)};
}

/// Loads all of the checkpoint at `path` as this rank's shards. The name of the first in which it differs from
/// content_of(seed); empty: in none.
inline std::string difference_from(const std::filesystem::path& path, uint64_t seed, const Mesh& mesh = Mesh()) {
  const int64_t rank = mesh.tensor().rank();
  const int64_t tp = mesh.tensor().size();
  const TrainingCheckpoint checkpoint(path, mesh);
  const auto parameters = cut_empty(whole_parameters(seed), rank, tp);
  checkpoint.load_parameters(parameters);
  const auto state = cut_empty(whole_optimizer_state(seed), rank, tp);
  checkpoint.load_optimizer_state(state);
  const std::string first = difference(parameters, cut(whole_parameters(seed), rank, tp));
  return first.empty() ? difference(state, cut(whole_optimizer_state(seed), rank, tp)) : first;
}

}  // namespace optp::testing

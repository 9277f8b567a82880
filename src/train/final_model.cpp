#include "src/train/final_model.h"

#include <ATen/ATen.h>

#include <utility>

#include "src/checkpoint/hf_writer.h"

namespace optp {

void write_final_model(const std::filesystem::path& folder, const OptConfig& config,
                       const std::vector<NamedShard>& weights, const Mesh& mesh,
                       const std::optional<std::filesystem::path>& tokenizer) {
  if (mesh.data().rank() != 0) return;
  const bool writes = mesh.world().rank() == 0;
  std::optional<HfWriter> writer;
  if (writes) {
    std::vector<TensorSpec> specs;
    for (const NamedShard& weight : weights) {
      specs.push_back({.name = weight.name, .dtype = at::kFloat, .shape = weight.shard.shape});
    }
    writer.emplace(folder, config, std::move(specs), HfWriterOptions{.tokenizer = tokenizer, .replace = true});
  }
  for (const NamedShard& weight : weights) {
    const at::Tensor whole = gather_whole(weight.tensor.detach(), weight.shard, mesh.tensor(), "final model");
    if (writes) writer->write(whole);
  }
  if (writes) writer->commit();
}

}  // namespace optp

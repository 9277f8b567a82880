// What a run is for: the trained model as a folder in Hugging Face's layout.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"

namespace optp {

/// Writes the folder as HfWriter does, weights in float32, the tokenizer's files copied from `tokenizer`. A folder that
/// has the name is replaced; the new one appears whole or not at all. Parameters are put together one at a time.
/// Collective over mesh.world(), whose rank 0 writes. Throws c10::ValueError that names path and reason.
void write_final_model(const std::filesystem::path& folder, const OptConfig& config,
                       const std::vector<NamedShard>& weights, const Mesh& mesh,
                       const std::optional<std::filesystem::path>& tokenizer);

}  // namespace optp

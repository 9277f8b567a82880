// A stored model from one form into another, tensor by tensor.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>

#include "src/checkpoint/hf_writer.h"
#include "src/checkpoint/model_source.h"

namespace optp {

struct ConvertOptions {
  std::optional<c10::ScalarType> dtype;  ///< of every weight; none: each as it is stored
  uint64_t seed = 0;                     ///< of fresh weights
};

/// What was written.
struct ConvertedModel {
  int64_t parameters = 0;
  uint64_t bytes = 0;  ///< of weights
  c10::ScalarType dtype = c10::kFloat;
};

// Each shows its progress. Errors are c10::ValueError: what the source and the writer throw, and a target that exists
// and is not an empty folder. The target is then as it was.

/// Writes a Hugging Face directory. Holds a few megabytes of weights in memory at a time.
ConvertedModel convert_to_hf(const ModelSource& source, const std::filesystem::path& folder,
                             const ConvertOptions& options, const HfWriterOptions& writer_options);

/// Writes a training checkpoint for `tp` ranks, without optimizer state. Holds one shard of one parameter at a time.
ConvertedModel convert_to_checkpoint(const ModelSource& source, const std::filesystem::path& folder, int64_t tp,
                                     const ConvertOptions& options);

/// Writes a TorchScript file, whose weights are all of one type: that of the embedding, if none is given. Holds the
/// whole model.
ConvertedModel convert_to_torchscript(const ModelSource& source, const std::filesystem::path& file,
                                      const ConvertOptions& options);

}  // namespace optp

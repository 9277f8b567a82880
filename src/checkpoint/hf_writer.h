// Writing a model directory in Hugging Face's layout, tensor by tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/opt_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"
#include "src/checkpoint/atomic_folder.h"
#include "src/checkpoint/safetensors_writer.h"

namespace optp {

struct HfWriterOptions {
  /// A file of weights grows no larger than this, unless one tensor alone is.
  uint64_t max_shard_size = 5'000'000'000;
  /// A folder whose tokenizer files (vocab.json, merges.txt, tokenizer.json, ...), as far as it has them, are copied.
  std::optional<std::filesystem::path> tokenizer;
  /// A folder whose generation_config.json, if it has one, is copied. Otherwise one is written that says what
  /// config.json says.
  std::optional<std::filesystem::path> generation_config;
  /// A folder that has the name is replaced in one step. Otherwise it is an error unless it is empty.
  bool replace = false;
};

/// Writes config.json, generation_config.json, the tokenizer's files and model.safetensors, or its shards, cut and
/// named as transformers does, and model.safetensors.index.json.
///
/// Call order: construct, write() until all tensors are complete, commit(). The folder appears whole and flushed to the
/// disk, or not at all. `folder` must not exist, or be empty. Errors are c10::ValueError that names the path and the
/// reason.
class HfWriter {
 public:
  /// `tensors` in the order in which they will be written, which is that of OPTForCausalLM's state_dict if the files
  /// are to be cut where transformers cuts them. Their dtype is what the files hold.
  HfWriter(const std::filesystem::path& folder, const OptConfig& config, std::vector<TensorSpec> tensors,
           const HfWriterOptions& options = {});

  /// The next elements, in row-major order: a whole tensor, or some rows of one. Floating-point values convert to the
  /// dtype that was announced.
  void write(const at::Tensor& values);

  void commit();

 private:
  struct Shard {
    std::string file;
    std::vector<TensorSpec> tensors;
    size_t unfinished = 0;  // tensors that are not written yet
    std::unique_ptr<SafetensorsWriter> writer;
  };

  void write_index() const;

  AtomicFolder folder_;
  std::vector<TensorSpec> tensors_;
  std::vector<Shard> shards_;
  std::vector<size_t> shard_of_;  // tensor -> its shard
  size_t current_ = 0;            // the tensor that is being written
  int64_t written_ = 0;           // elements of it
};

/// Writes a model whose `parameters` (named_shards of it) are spread over mesh.tensor(): they are put together one by
/// one and written by rank 0. `dtype`: of the files; none: each parameter's own. Collective over mesh.world(): what
/// fails on rank 0 is a c10::ValueError on all, and nothing is left of the folder.
void write_hf_directory(const std::filesystem::path& folder, const OptConfig& config,
                        const std::vector<NamedShard>& parameters, const Mesh& mesh,
                        std::optional<at::ScalarType> dtype = std::nullopt, const HfWriterOptions& options = {});

/// Which tensors go into which file: for each file, in order, the places of its tensors in `bytes`, their sizes. The
/// result is that of transformers (huggingface_hub's split_state_dict_into_shards_factory).
std::vector<std::vector<size_t>> split_into_shards(const std::vector<uint64_t>& bytes, uint64_t max_shard_size);

/// "5GB", "200KB", "1.5 MB" or a number of bytes, in powers of ten. Throws c10::ValueError that names the text.
uint64_t parse_shard_size(const std::string& text);

}  // namespace optp

// The two models that a verification compares, and what passes between them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "modules/opt_reference.h"
#include "parallel/gradients.h"
#include "parallel/mesh.h"
#include "parallel/parameter_shard.h"
#include "src/checkpoint/model_source.h"
#include "src/verify/compare.h"
#include "src/verify/memory_trial.h"

namespace optp {

struct VerifyOptions {
  ModelSource source;
  at::ScalarType type = at::kFloat;
  uint64_t seed = 0;
  int64_t batch_size = 2;
  int64_t seq_len = 64;
  /// How the sharded model is trained. Copies (the mesh's dp) share a batch as `optp train` deals it out.
  int64_t micro_batch_size = 0;  ///< sequences that a copy takes at once; 0: its whole part
  bool sequence_parallel = false;
  bool activation_checkpointing = false;
  int64_t epochs = 0;  ///< of the check stability; 0: as many as the reference needs to fall
  double forward_tolerance = 1e-5;
  double loss_tolerance = 1e-3;
  double max_memory_overhead = 0.5;
  std::vector<std::string> checks;  ///< names, in the order of check_names()
  std::vector<int64_t> text;        ///< token ids to draw batches from; empty: random ids
  std::string fault;                ///< one of fault_names(), or empty
  int64_t fault_layer = 0;
  bool trace_layers = false;  ///< compare every layer's output and log it
};

struct Batch {
  at::Tensor input_ids;       ///< [B, T]
  at::Tensor attention_mask;  ///< [B, T] int64 of 0 and 1
  at::Tensor labels;          ///< [B, T], -100 where masked
};

/// Every rank holds its shards of the model under test, which is run and trained as the options say: over several
/// copies, in micro-batches, its gradients added up by the code that `optp train` uses. Rank 0 also holds the whole
/// reference. The other ranks learn what the reference computed by broadcast and compare it with what they hold
/// themselves, so a verdict rests on every rank's evidence. All member functions are collective unless they say
/// otherwise.
///
/// A model in bfloat16 is compared with a reference in float32 that starts from the same rounded weights. How far apart
/// the two may be, a second reference says that is run in bfloat16 (src/verify/bfloat16.h).
class Session {
 public:
  Session(const VerifyOptions& options, const Mesh& mesh);

  const VerifyOptions& options() const { return options_; }
  const OptConfig& config() const { return options_.source.config; }
  /// The group that the evidence travels over: not the model's own, whose collectives may be broken on purpose.
  const ProcessGroup& world() const { return mesh_.world(); }
  const Mesh& mesh() const { return mesh_; }
  OptForCausalLM& model() { return model_; }
  /// The model's parameters and their shards.
  const std::vector<NamedShard>& shards() const { return shards_; }
  /// Bytes that were allocated while the sharded model was built and are still alive on this rank; measured at build
  /// time.
  int64_t model_bytes() const { return model_bytes_; }
  /// Two training steps, measured before the reference was built; present if the check "memory" is asked for.
  const std::optional<MemoryTrial>& memory_trial() const { return memory_trial_; }
  /// Where the gradients of the last model_loss() are, and their norm as the ranks agreed on it.
  Gradients& gradients() { return *gradients_; }
  /// The gradient of parameter `i` of shards() as it is trained with, float32 under bfloat16; undefined if backward did
  /// not reach it. Not collective.
  at::Tensor gradient(size_t i) const;
  double gradient_norm() const { return gradient_norm_; }
  /// What a forward pass is asked for in the configuration that is verified.
  OptForwardOptions forward_options(const at::Tensor& attention_mask) const;

  /// Whether this rank holds the reference. Not collective.
  bool has_reference() const { return !reference_.is_empty(); }
  /// Runs `body` on the rank that holds the reference, with all cores of the host. Not collective.
  void with_reference(const std::function<void(OptReferenceImpl&)>& body);
  /// Whether the model computes in bfloat16 and the reference in float32. Not collective.
  bool in_bfloat16() const { return options_.type == at::kBFloat16; }
  /// Runs `body` with the reference in bfloat16, where there is one, on the rank that holds it. Not collective.
  void with_bfloat16_reference(const std::function<void(OptReferenceImpl&)>& body);
  /// A tensor that rank 0 has, on every rank. The others pass its shape.
  at::Tensor from_reference(const at::Tensor& value, at::IntArrayRef shape);
  double from_reference(double value);

  /// Puts both models at the starting weights, without gradients. Fresh weights are drawn so that a mistake in
  /// any part of the model shows.
  void reset_weights();

  /// Batch `index` of the fixed data: the same on every rank. Not collective.
  Batch batch(int64_t index, int64_t sequences, int64_t tokens) const;
  Batch batch(int64_t index) const { return batch(index, options_.batch_size, options_.seq_len); }
  /// Batch `index` of the data that models are trained on. Random ids are drawn from a few words of the vocabulary:
  /// where every word is as likely as any other there is nothing to learn but each by heart. Not collective.
  Batch training_batch(int64_t index) const;

  /// Forward and backward of one batch; the loss. Gradients of the last call stand in the parameters. The model's
  /// copies each take their part of the batch, micro-batch by micro-batch.
  double model_loss(const Batch& batch);
  double reference_loss(const Batch& batch);

  /// For each of shards(), how far the local part is from the reference's: of the parameters, or of their gradients.
  std::vector<Difference> compare_parameters();
  std::vector<Difference> compare_gradients();

 private:
  Batch batch(int64_t index, int64_t sequences, int64_t tokens, int64_t words) const;
  std::vector<Difference> compare(const std::function<at::Tensor(size_t)>& actual,
                                  const std::function<at::Tensor(const at::Tensor&)>& reference_part);

  VerifyOptions options_;
  Mesh mesh_;
  OptForCausalLM model_{nullptr};
  OptReference reference_{nullptr}, bfloat16_reference_{nullptr};
  std::vector<NamedShard> shards_;
  std::vector<NamedShard> whole_;  // the reference's parameters
  // The starting weights of both: drawing or reading them anew for each check would take longer than the checks.
  std::vector<at::Tensor> starting_shards_, starting_whole_;
  std::unique_ptr<Gradients> gradients_;
  double gradient_norm_ = 0;
  int64_t model_bytes_ = 0;
  std::optional<MemoryTrial> memory_trial_;
};

}  // namespace optp

// What `optp bench` measures of a model: the workloads that its peers are measured with, on the same inputs.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "src/bench/measure.h"
#include "src/checkpoint/model_source.h"

namespace optp {

struct WorkloadOptions {
  ModelSource model;
  uint64_t seed = 0;  ///< of fresh weights
  at::ScalarType dtype = at::kFloat;
  at::ScalarType weights = at::kFloat;  ///< as load_for_inference takes them; training keeps `dtype`
  int64_t batch_size = 4;
  int64_t seq_len = 256;  ///< tokens of a sequence; of the prompt where tokens are generated
  int64_t iterations = 5;
};

struct WorkloadResult {
  Measurement measurement;
  int64_t tokens = 0;         ///< that one iteration counts
  std::vector<double> check;  ///< numbers that tell whether another program computed the same
};

/// Input [batch, seq_len]: flat position i holds token 4 + (7919 i + 13) mod min(50000, vocabulary - 4).
at::Tensor bench_ids(int64_t batch, int64_t seq_len, const OptConfig& config);

// Each builds the model, takes one iteration to warm up and `iterations` with a clock. Collective over mesh.world().

/// Forward to the logits, which stay sharded over the vocabulary. check: the mean of their absolute values.
WorkloadResult bench_forward(const Mesh& mesh, const WorkloadOptions& options);

/// Mean loss over the shifted targets, backward, AdamW (lr 1e-4, betas 0.9 and 0.999, eps 1e-8, weight decay 0.01)
/// without dropout. check: the losses of the first two steps.
WorkloadResult bench_train(const Mesh& mesh, const WorkloadOptions& options);

/// 64 new tokens, greedy, reading the prompt included. check: the first 8 new ids of the first sequence.
WorkloadResult bench_decode(const Mesh& mesh, const WorkloadOptions& options);

}  // namespace optp

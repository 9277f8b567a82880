// From the scores of a step to the next token of every continuation, the vocabulary shared by the ranks of a group.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/process_group.h"
#include "parallel/random.h"
#include "parallel/shard.h"
#include "src/inference/sampling.h"

namespace optp {

/// What a row's choice depends on besides its scores.
struct ChoiceContext {
  const std::vector<int64_t>* ids;  ///< the tokens so far, for the repetition penalty
  RandomKey key;                    ///< of this step; greedy choices need none
};

class TokenChooser {
 public:
  /// `forbidden`: bool [local V], the ids of this rank's range that are never chosen; undefined: none.
  TokenChooser(ShardLayout vocabulary, ProcessGroup group, at::Tensor forbidden);

  /// The next token of each row, int64 [rows], the same on every rank. `scores` [rows, local V] float32 or float64 are
  /// changed in place; rows without a context have ended, and what they get means nothing. Collective: greedy, two
  /// numbers a row and rank are exchanged ("generate"), and otherwise all scores.
  at::Tensor choose(at::Tensor scores, const std::vector<std::optional<ChoiceContext>>& contexts,
                    const SamplingOptions& options) const;

 private:
  ShardLayout vocabulary_;
  ProcessGroup group_;
  at::Tensor forbidden_;
};

}  // namespace optp

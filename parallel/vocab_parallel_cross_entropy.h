// Cross entropy of logits whose vocabulary is shared by the ranks of a group. The logits are never gathered.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "parallel/process_group.h"
#include "parallel/shard.h"

namespace optp {

/// The cross entropy of every row, log(sum_v exp(logits_v)) - logits_label, on every rank:
///
///   logits  [N, V]  this rank's range layout.range(group.rank()) of the vocabulary
///   labels  [N]     int64 ids of the whole vocabulary, the same on every rank; ignore_index -> loss 0, no gradient
///   result  [N]     float32 (float64 for float64 logits), whatever the logits' type: sums are taken in that type
///
/// Three numbers a row are exchanged: the largest logit, the sum of exponentials, the label's logit. The mean over the
/// rows that count is `result.sum() / labels.ne(ignore_index).sum()`.
/// Throws c10::IndexError for a label outside the vocabulary that is not ignore_index.
at::Tensor vocab_parallel_cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const ShardLayout& layout,
                                        const ProcessGroup& group, int64_t ignore_index = -100,
                                        std::string_view site = "vocab_parallel_cross_entropy");

/// Throws c10::IndexError that names the first of `labels` which is neither a word of `layout` nor ignore_index.
void check_labels(const at::Tensor& labels, const ShardLayout& layout, int64_t ignore_index);

}  // namespace optp

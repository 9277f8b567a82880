// The cross entropy of a language-model head, whose vocabulary is shared by the ranks of a group, without the logits of
// the batch: they exist for a few rows at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "parallel/process_group.h"
#include "parallel/shard.h"
#include "parallel/stored_weight.h"

namespace optp {

/// Rows whose logits exist at once.
inline constexpr int64_t kLossChunk = 256;

/// The sum over all rows of log(sum_v exp(logits_v)) - logits_label with logits = hidden W^T, on every rank:
///
///   hidden  [N, D]  the same on every rank
///   weight  [V, D]  this rank's rows layout.range(group.rank()) of W; no gradients if it is narrower than hidden
///   labels  [N]     int64 ids of the whole vocabulary, the same on every rank; ignore_index -> loss 0, no gradient
///   result  []      float32 (float64 for float64 operands): statistics and sums are taken in that type
///
/// Equal to vocab_parallel_cross_entropy(product(hidden, weight), ..).sum(), at `chunk` rows at a time. When gradients
/// are wanted, each chunk's are formed while its logits exist, so forward holds [N, D] and [V, D] for backward, and
/// backward only multiplies by the incoming gradient. (Wijmans et al., "Cut Your Losses in Large-Vocabulary Language
/// Models", 2024, and Hsu et al., "Liger Kernel", 2024, do the same within one device.)
///
/// The gradient of `hidden` is that of this rank's words: pass hidden through copy_to (or all_gather_to) to have it
/// added over the ranks. Weight gradients of 16-bit operands are summed over the chunks in float32.
///
/// Communication, none of it in a group of one: one all_gather of 3 numbers a row for each chunk at `site`, so
/// ceil(N / chunk) calls and 3 N numbers of the result's type; nothing in backward.
/// Throws c10::IndexError for a label outside the vocabulary that is not ignore_index.
at::Tensor vocab_parallel_linear_cross_entropy(const at::Tensor& hidden, const StoredWeight& weight,
                                               const at::Tensor& labels, const ShardLayout& layout,
                                               const ProcessGroup& group, int64_t ignore_index = -100,
                                               std::string_view site = "vocab_parallel_linear_cross_entropy",
                                               int64_t chunk = kLossChunk);

}  // namespace optp

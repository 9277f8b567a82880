// The largest of scores whose vocabulary is shared by the ranks of a group. The scores are never gathered.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "parallel/process_group.h"
#include "parallel/shard.h"

namespace optp {

/// The id of the highest score of every row, the smallest such id where several tie, on every rank:
///
///   scores  [N, V]  this rank's range layout.range(group.rank()) of the vocabulary
///   result  [N]     int64 ids of the whole vocabulary
///
/// Two numbers a row and rank are exchanged. A row that holds a NaN is a c10::ValueError on every rank.
at::Tensor vocab_parallel_argmax(const at::Tensor& scores, const ShardLayout& layout, const ProcessGroup& group,
                                 std::string_view site = "vocab_parallel_argmax");

}  // namespace optp

// The four mappings between whole and sharded activations. All communication of tensor parallelism inside a model goes
// through them; each has exactly one collective, in forward or in backward.
//
//   mapping      forward       backward      used where
//   copy_to      identity      all-reduce    a whole activation enters column-parallel layers
//   reduce_from  all-reduce    identity      partial sums leave a row-parallel layer
//   scatter_to   own range     all-gather    a whole activation enters a row-parallel layer
//   gather_from  all-gather    own range     a sharded activation is wanted whole
//
// Backward runs outside of autograd: no gradients of gradients.
//
// Shoeybi et al., Megatron-LM (2019), section 3: copy_to is `f`, reduce_from is `g`. The names are those of
// Megatron-LM.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "parallel/process_group.h"
#include "parallel/shard.h"

namespace optp {

/// Identity; the gradients of all ranks are added. `site` names the backward all-reduce.
at::Tensor copy_to(const at::Tensor& input, const ProcessGroup& group, std::string_view site);

/// Adds `input` over the ranks; the gradient passes through.
at::Tensor reduce_from(const at::Tensor& input, const ProcessGroup& group, std::string_view site);

/// reduce_from without the copy: overwrites `input`, which must be the fresh result of an operation that did not save
/// it for backward. (Autograd notices when it did, and backward throws.)
at::Tensor reduce_from_(at::Tensor input, const ProcessGroup& group, std::string_view site);

/// This rank's range of dimension `dim` (negative counts from the end), whose size is layout.total().
at::Tensor scatter_to(const at::Tensor& input, int64_t dim, const ShardLayout& layout, const ProcessGroup& group,
                      std::string_view site);

/// The parts of all ranks put together along `dim`.
at::Tensor gather_from(const at::Tensor& input, int64_t dim, const ShardLayout& layout, const ProcessGroup& group,
                       std::string_view site);

}  // namespace optp

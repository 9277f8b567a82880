// The mappings between whole and sharded activations. All communication of tensor parallelism inside a model goes
// through them; each has exactly one collective in forward, in backward, or in each.
//
//   mapping              forward         backward        used where
//   copy_to              identity        all-reduce      a whole activation enters column-parallel layers
//   reduce_from          all-reduce      identity        partial sums leave a row-parallel layer
//   scatter_to           own range       all-gather      a whole activation enters a row-parallel layer
//   gather_from          all-gather      own range       a sharded activation is wanted whole
//   all_gather_to        all-gather      reduce-scatter  a slice of the tokens enters column-parallel layers
//   reduce_scatter_from  reduce-scatter  all-gather      partial sums leave a row-parallel layer as slices
//
// Backward runs outside of autograd: no gradients of gradients. In a group of one nothing is sent.
//
// Shoeybi et al., Megatron-LM (2019), section 3: copy_to is `f`, reduce_from is `g`. Korthikanti et al., "Reducing
// Activation Recomputation in Large Transformer Models" (2022), section 4.2.2: all_gather_to is `g`,
// reduce_scatter_from is `g` with a bar. The first four names are those of Megatron-LM.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <vector>

#include "parallel/process_group.h"
#include "parallel/shard.h"

namespace optp {

/// Identity; the gradients of all ranks are added. `site` names the backward all-reduce.
at::Tensor copy_to(const at::Tensor& input, const ProcessGroup& group, std::string_view site);

/// The same for several tensors of one type, whose gradients are added in one all-reduce; undefined ones stay so, and
/// those that need no gradient are left out.
/// Meant for parameters that every rank holds whole and applies to a part of the tokens: their gradients are then
/// complete on every rank. A tensor that gets no gradient on one rank must get none on the others.
std::vector<at::Tensor> copy_to(const std::vector<at::Tensor>& inputs, const ProcessGroup& group,
                                std::string_view site);

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

/// The parts of all ranks put together along `dim`; the gradients of all ranks are added, and each gets its part's.
at::Tensor all_gather_to(const at::Tensor& input, int64_t dim, const ShardLayout& layout, const ProcessGroup& group,
                         std::string_view forward_site, std::string_view backward_site);

/// Adds `input` over the ranks, keeps this rank's range of dimension `dim`, and adds `bias` to it if that is defined.
/// `bias`, the same on every rank, broadcasts against the whole and does not cut `dim`. Its gradient is complete on
/// every rank without communication of its own, since backward has the whole gradient at hand.
at::Tensor reduce_scatter_from(const at::Tensor& input, const at::Tensor& bias, int64_t dim, const ShardLayout& layout,
                               const ProcessGroup& group, std::string_view forward_site,
                               std::string_view backward_site);

}  // namespace optp

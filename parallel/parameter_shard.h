// The one description of which part of which parameter a rank holds. Initialisation, loading, gathering and
// verification all read it; nothing else decides who owns what.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/process_group.h"
#include "parallel/shard.h"

namespace optp {

/// The part of one parameter that a rank holds.
struct ParameterShard {
  std::vector<int64_t> shape;  ///< of the whole parameter
  std::optional<int64_t> dim;  ///< the dimension that is cut; none: every rank holds the whole
  ShardLayout layout;          ///< how `dim` is cut
  int64_t part = 0;            ///< which of the layout's parts is held here

  bool replicated() const { return !dim.has_value(); }
  /// The range of `dim` held here; of a replicated parameter, all of dimension 0.
  Range range() const;
  std::vector<int64_t> local_shape() const;
  /// A view of this shard in `whole`, which has `shape`.
  at::Tensor slice(const at::Tensor& whole) const;
};

/// A parameter of a model, under its full dotted name, and the shard of it that `tensor` is.
struct NamedShard {
  std::string name;
  at::Tensor tensor;
  ParameterShard shard;
};

/// A torch::nn module that holds shards. Modules without this base hold whole parameters.
class ShardedModule {
 public:
  virtual ~ShardedModule() = default;
  /// The module's own sharded parameters by their short names ("weight"); whole ones are left out.
  virtual std::map<std::string, ParameterShard> sharded_parameters() const = 0;
};

/// Every parameter of `model` with its shard, in the order of registration. The tensors are the model's own.
std::vector<NamedShard> named_shards(const torch::nn::Module& model);

/// The whole parameter (or a tensor of its shape, such as its gradient) from the shards of all ranks of `group`.
/// Collective; `local` has shard.local_shape().
at::Tensor gather_whole(const at::Tensor& local, const ParameterShard& shard, const ProcessGroup& group,
                        std::string_view site);

/// Fills every shard from a model that exists whole on this rank. `whole` returns the parameter of a name; its shape
/// must be the shard's global one. Throws c10::ValueError that names the first parameter which does not fit.
void copy_from_whole(const std::vector<NamedShard>& shards, const std::function<at::Tensor(const std::string&)>& whole);

/// The same, from a whole model whose parameters carry the same names.
void copy_from_whole(const std::vector<NamedShard>& shards, const torch::nn::Module& whole);

}  // namespace optp

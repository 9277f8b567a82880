#include "parallel/parameter_shard.h"

#include <ATen/ATen.h>

namespace optp {

Range ParameterShard::range() const {
  if (replicated()) return {0, shape.empty() ? 1 : shape[0]};
  return layout.range(part);
}

std::vector<int64_t> ParameterShard::local_shape() const {
  std::vector<int64_t> local = shape;
  if (dim) local[*dim] = range().size;
  return local;
}

at::Tensor ParameterShard::slice(const at::Tensor& whole) const {
  return dim ? whole.narrow(*dim, range().start, range().size) : whole;
}

namespace {

// The parameters of `module` itself, not of those in it.
void append_own_shards(const torch::nn::Module& module, const std::string& prefix, std::vector<NamedShard>& shards) {
  std::map<std::string, ParameterShard> sharded;
  if (const auto* holder = dynamic_cast<const ShardedModule*>(&module)) sharded = holder->sharded_parameters();
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    const auto found = sharded.find(parameter.key());
    ParameterShard shard;
    if (found != sharded.end()) {
      shard = found->second;
    } else {
      shard.shape = parameter.value().sizes().vec();
    }
    shards.push_back({prefix + parameter.key(), parameter.value(), std::move(shard)});
  }
}

}  // namespace

std::vector<NamedShard> named_shards(const torch::nn::Module& model) {
  std::vector<NamedShard> shards;
  append_own_shards(model, "", shards);
  // Without the model itself, which LibTorch gives only of a module that a shared_ptr holds already: a constructor that
  // draws its weights has none yet.
  for (const auto& entry : model.named_modules(/*name_prefix=*/std::string(), /*include_self=*/false)) {
    append_own_shards(*entry.value(), entry.key() + ".", shards);
  }
  return shards;
}

at::Tensor gather_whole(const at::Tensor& local, const ParameterShard& shard, const ProcessGroup& group,
                        std::string_view site) {
  return shard.dim ? group.all_gather(local, *shard.dim, shard.layout, site) : local.detach();
}

void copy_from_whole(const std::vector<NamedShard>& shards,
                     const std::function<at::Tensor(const std::string&)>& whole) {
  at::NoGradGuard no_grad;
  for (const NamedShard& entry : shards) {
    const at::Tensor source = whole(entry.name);
    TORCH_CHECK_VALUE(source.defined(), "the whole model has no parameter ", entry.name,
                      ": build both models from the same configuration.");
    TORCH_CHECK_VALUE(source.sizes() == entry.shard.shape, "parameter ", entry.name, " is ", source.sizes(),
                      " in the whole model and ", at::IntArrayRef(entry.shard.shape),
                      " in the sharded one: build both from the same configuration.");
    entry.tensor.copy_(entry.shard.slice(source));
  }
}

void copy_from_whole(const std::vector<NamedShard>& shards, const torch::nn::Module& whole) {
  const auto parameters = whole.named_parameters();
  copy_from_whole(shards, [&](const std::string& name) {
    const at::Tensor* found = parameters.find(name);
    return found ? *found : at::Tensor();
  });
}

}  // namespace optp

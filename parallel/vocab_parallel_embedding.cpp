#include "parallel/vocab_parallel_embedding.h"

#include <ATen/ATen.h>

#include <ostream>
#include <utility>

#include "parallel/mappings.h"

namespace optp {

VocabParallelEmbeddingImpl::VocabParallelEmbeddingImpl(VocabParallelEmbeddingOptions options_, ProcessGroup group)
    : options(std::move(options_)),
      group_(std::move(group)),
      layout_(options.num_embeddings(), group_.size()),
      forward_site_(options.name() + " forward"),
      backward_site_(options.name() + " backward") {
  const int64_t padding = options.padding_idx().value_or(0);
  TORCH_CHECK_VALUE(padding >= 0 && padding < options.num_embeddings(), "padding_idx ", padding,
                    " is outside the vocabulary of ", options.num_embeddings(), "; use an id from 0 to ",
                    options.num_embeddings() - 1, ".");
  VocabParallelEmbeddingImpl::reset();
}

void VocabParallelEmbeddingImpl::reset() {
  const int64_t rows = layout_.range(group_.rank()).size;
  weight = register_parameter("weight", at::empty({rows, options.embedding_dim()}, options.tensor_options()));
}

void VocabParallelEmbeddingImpl::pretty_print(std::ostream& stream) const {
  stream << "optp::VocabParallelEmbedding(num_embeddings=" << options.num_embeddings()
         << ", local=" << layout_.range(group_.rank()).size << ", embedding_dim=" << options.embedding_dim() << ")";
}

at::Tensor VocabParallelEmbeddingImpl::forward(const at::Tensor& ids, const std::optional<TokenSlices>& slices) {
  const at::Tensor rows = own_rows(ids);
  return slices ? reduce_scatter_from(rows, /*bias=*/{}, 0, slices->layout, group_, forward_site_, backward_site_)
                : reduce_from_(rows, group_, forward_site_);
}

at::Tensor VocabParallelEmbeddingImpl::own_rows(const at::Tensor& ids) {
  if (ids.numel() > 0) {
    const auto [smallest, largest] = at::aminmax(ids);
    TORCH_CHECK_INDEX(smallest.item<int64_t>() >= 0 && largest.item<int64_t>() < options.num_embeddings(), "id ",
                      (smallest.item<int64_t>() < 0 ? smallest : largest).item<int64_t>(),
                      " is outside the vocabulary of ", options.num_embeddings(), "; use ids from 0 to ",
                      options.num_embeddings() - 1, ".");
  }
  const Range range = layout_.range(group_.rank());
  const int64_t padding =
      options.padding_idx() && range.contains(*options.padding_idx()) ? *options.padding_idx() - range.start : -1;
  if (group_.size() == 1) return lookup(ids, padding);
  const at::Tensor elsewhere = ids.lt(range.start).logical_or_(ids.ge(range.end()));
  const at::Tensor local = (ids - range.start).masked_fill_(elsewhere, 0);
  return lookup(local, padding).masked_fill(elsewhere.unsqueeze(-1), 0);
}

at::Tensor VocabParallelEmbeddingImpl::lookup(const at::Tensor& local_ids, int64_t padding) const {
  if (!narrowed_) return at::embedding(weight, local_ids, padding);
  std::vector<int64_t> shape = local_ids.sizes().vec();
  shape.push_back(options.embedding_dim());
  return stored_weight().rows(local_ids.flatten()).view(shape);
}

void VocabParallelEmbeddingImpl::narrow_weight(at::ScalarType type) {
  narrow_weight_(weight, weight_scale_, type, /*group=*/nullptr, options.name());
  narrowed_ = true;
}

std::map<std::string, ParameterShard> VocabParallelEmbeddingImpl::sharded_parameters() const {
  return {{"weight", {{options.num_embeddings(), options.embedding_dim()}, 0, layout_, group_.rank()}}};
}

}  // namespace optp

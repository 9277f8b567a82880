#include "parallel/vocab_parallel_argmax.h"

#include <ATen/ATen.h>

namespace optp {

at::Tensor vocab_parallel_argmax(const at::Tensor& scores, const ShardLayout& layout, const ProcessGroup& group,
                                 std::string_view site) {
  const Range range = layout.range(group.rank());
  TORCH_CHECK_VALUE(scores.dim() == 2 && scores.size(1) == range.size, site, ": scores are ", scores.sizes(),
                    "; pass [rows, ", range.size, "], this rank's range of the vocabulary.");
  const at::Tensor local = scores.argmax(1, /*keepdim=*/true);  // the first one where several tie; a NaN is largest
  // float64 holds every float32 score and every id exactly.
  const at::Tensor best = at::cat({scores.gather(1, local).to(at::kDouble), (local + range.start).to(at::kDouble)}, 1);
  const at::Tensor all =
      group.all_gather(best.unsqueeze(0), 0, ShardLayout(group.size(), group.size()), site);  // [ranks, N, 2]
  const at::Tensor values = all.select(2, 0);
  TORCH_CHECK_VALUE(!values.isnan().any().item<bool>(), site,
                    ": the model's scores are not numbers (NaN); check its weights.");
  // Ranks own ascending ranges, so the first rank that has the highest score has its smallest id.
  return all.select(2, 1).gather(0, values.argmax(0, /*keepdim=*/true)).squeeze(0).to(at::kLong);
}

}  // namespace optp

#include "parallel/stored_weight.h"

#include <ATen/ATen.h>

namespace optp {
namespace {

constexpr double kLargestInt8 = 127;

// max_k |W[n][k]| over the columns of all ranks, [N].
at::Tensor largest_of_channels(const at::Tensor& weight, const ProcessGroup* group, std::string_view site) {
  at::Tensor largest = at::maximum(weight.amax(1), weight.amin(1).neg_());  // without |W|, which would be a second W
  if (group) group->all_reduce_(largest, site, c10d::ReduceOp::MAX);
  return largest;
}

}  // namespace

at::Tensor StoredWeight::widened(int64_t first, int64_t count, const at::Tensor& out) const {
  at::Tensor wide = out.narrow(0, 0, count);
  wide.copy_(values.narrow(0, first, count));
  if (scale.defined()) wide.mul_(scale.narrow(0, first, count).unsqueeze(1));
  return wide;
}

at::Tensor StoredWeight::rows(const at::Tensor& ids) const {
  at::Tensor wide = values.index_select(0, ids).to(at::kFloat);
  if (scale.defined()) wide.mul_(scale.index_select(0, ids).unsqueeze(1));
  return wide;
}

void narrow_weight_(at::Tensor& weight, at::Tensor& scale, at::ScalarType type, const ProcessGroup* group,
                    std::string_view site) {
  TORCH_CHECK_VALUE(weight.scalar_type() == at::kFloat && (type == at::kBFloat16 || type == at::kChar), site,
                    ": a weight of type ", weight.scalar_type(), " cannot be kept as ", type,
                    "; keep float32 weights as bfloat16 or int8.");
  const at::NoGradGuard no_grad;
  const at::Tensor wide = weight.detach();
  at::Tensor narrow;
  if (type == at::kBFloat16) {
    narrow = wide.to(at::kBFloat16);
  } else {
    const at::Tensor largest = largest_of_channels(wide, group, site);
    TORCH_CHECK_VALUE(largest.isfinite().all().item<bool>(), site,
                      ": the weights are not all finite numbers, which int8 cannot hold; check the model.");
    scale = largest / kLargestInt8;
    // In place: the float32 numbers are not needed any more. A channel of zeros stays zero.
    narrow = wide.mul_(at::where(largest > 0, kLargestInt8 / largest, 0).unsqueeze(1)).round_().to(at::kChar);
  }
  weight.set_requires_grad(false);
  weight.set_data(narrow);
}

}  // namespace optp

#include "parallel/vocab_parallel_cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <string>

namespace optp {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& labels,
                            const Range& range, const ProcessGroup& group, int64_t ignore_index,
                            const std::string& site) {
    const auto type = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor largest = logits.detach().amax(/*dim=*/1).to(type);  // [N]
    group.all_reduce_(largest, site, c10d::ReduceOp::RedOpType::MAX);

    const at::Tensor ignored = labels.eq(ignore_index);
    const at::Tensor elsewhere = labels.lt(range.start).logical_or_(labels.ge(range.end())).logical_or_(ignored);
    const at::Tensor column = (labels - range.start).masked_fill_(elsewhere, 0).unsqueeze_(1);  // [N, 1]

    at::Tensor shifted = logits.detach().to(type) - largest.unsqueeze(1);  // [N, V], fresh
    const at::Tensor label_logit = shifted.gather(1, column).squeeze_(1).masked_fill_(elsewhere, 0);
    at::Tensor exponentials = shifted.exp_();
    // One exchange for both sums: [2, N].
    at::Tensor sums = at::stack({exponentials.sum(/*dim=*/1), label_logit});
    group.all_reduce_(sums, site);

    const at::Tensor softmax = exponentials.div_(sums[0].unsqueeze(1));
    context->save_for_backward({softmax, column, elsewhere, ignored});
    context->saved_data["type"] = static_cast<int64_t>(logits.scalar_type());
    return (sums[0].log() - sums[1]).masked_fill_(ignored, 0);
  }

  // d loss_n / d logits_nv = softmax_nv - [v is the label of n]
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &softmax = saved[0], &column = saved[1], &elsewhere = saved[2], &ignored = saved[3];
    const at::Tensor weight = gradients[0].masked_fill(ignored, 0).unsqueeze_(1);  // [N, 1]
    at::Tensor gradient = softmax * weight;
    gradient.scatter_add_(1, column, weight.neg().masked_fill_(elsewhere.unsqueeze(1), 0));
    gradient = gradient.to(static_cast<at::ScalarType>(context->saved_data["type"].toInt()));
    return {gradient, {}, {}, {}, {}, {}};
  }
};

}  // namespace

void check_labels(const at::Tensor& labels, const ShardLayout& layout, int64_t ignore_index) {
  const at::Tensor wrong = labels.lt(0).logical_or_(labels.ge(layout.total())).logical_and_(labels.ne(ignore_index));
  if (wrong.any().item<bool>()) {
    TORCH_CHECK_INDEX(false, "label ", labels.masked_select(wrong)[0].item<int64_t>(), " is outside the vocabulary of ",
                      layout.total(), "; use ids from 0 to ", layout.total() - 1, ", or ", ignore_index,
                      " to leave a position out.");
  }
}

at::Tensor vocab_parallel_cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const ShardLayout& layout,
                                        const ProcessGroup& group, int64_t ignore_index, std::string_view site) {
  const Range range = layout.range(group.rank());
  TORCH_CHECK_VALUE(logits.dim() == 2 && logits.size(1) == range.size, site, ": logits are ", logits.sizes(),
                    " and this rank owns ", range.size, " words; pass [N, ", range.size, "].");
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == logits.size(0), site, ": ", labels.sizes(), " labels for ",
                    logits.size(0), " rows of logits; pass one label a row.");
  check_labels(labels, layout, ignore_index);
  return CrossEntropyFunction::apply(logits, labels, range, group, ignore_index, std::string(site));
}

}  // namespace optp

#include "parallel/vocab_parallel_linear_cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "parallel/product.h"
#include "parallel/vocab_parallel_cross_entropy.h"

namespace optp {
namespace {

using torch::autograd::variable_list;

// Holds the gradients of the sum of losses, formed in forward, until the gradient of the sum itself arrives.
class LinearCrossEntropyBackward : public torch::autograd::Node {
 public:
  LinearCrossEntropyBackward(at::Tensor hidden_gradient, at::Tensor weight_gradient, at::ScalarType type)
      : gradients_{std::move(hidden_gradient), std::move(weight_gradient)}, type_(type) {}

  variable_list apply(variable_list&& incoming) override {
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    if (!incoming[0].defined()) return {at::Tensor(), at::Tensor()};
    at::NoGradGuard no_grad;
    const bool scale = incoming[0].item<double>() != 1;
    variable_list results;
    for (at::Tensor& held : gradients_) {
      // The last to ask gets the memory itself.
      at::Tensor gradient = last_ ? std::exchange(held, at::Tensor()) : held;
      if (gradient.defined() && scale) gradient = last_ ? gradient.mul_(incoming[0]) : gradient.mul(incoming[0]);
      results.push_back(gradient.defined() ? gradient.to(type_) : gradient);
    }
    return results;
  }

  void will_release_variables() override { last_ = true; }
  void release_variables() override {
    released_ = true;
    gradients_ = {at::Tensor(), at::Tensor()};
  }
  std::string name() const override { return "optp::LinearCrossEntropyBackward"; }

 private:
  std::vector<at::Tensor> gradients_;  // of hidden and weight; undefined where not needed
  at::ScalarType type_;
  bool last_ = false;
  bool released_ = false;
};

// What is the same for all chunks.
struct Head {
  StoredWeight weight;  // [V, D]
  Range range;          // of the vocabulary, this rank's
  ProcessGroup group;
  std::string site;
  at::ScalarType type;  // of statistics and sums
};

// The labels of a chunk as this rank sees them, [n, 1] each.
struct Labels {
  at::Tensor column;     // in this rank's logits; 0 where another rank owns the label
  at::Tensor elsewhere;  // another rank owns it, or it is ignored
  at::Tensor owner;      // the rank that owns it
  at::Tensor ignored;
};

Labels labels_of(const at::Tensor& labels, const ShardLayout& layout, const Range& range, int64_t ignore_index) {
  std::vector<int64_t> ends;
  for (int64_t part = 0; part < layout.parts(); ++part) ends.push_back(layout.range(part).end());
  Labels all;
  all.ignored = labels.eq(ignore_index).unsqueeze_(1);
  const at::Tensor known = labels.unsqueeze(1).masked_fill(all.ignored, 0);
  all.owner = at::bucketize(known, at::tensor(ends), /*out_int32=*/false, /*right=*/true);
  all.elsewhere = known.lt(range.start).logical_or_(known.ge(range.end())).logical_or_(all.ignored);
  all.column = (known - range.start).masked_fill_(all.elsewhere, 0);
  return all;
}

// The losses [n, 1] of the logits [n, V], which end up as the gradient of the losses' sum if `gradient`, and otherwise
// as something that is no longer needed.
at::Tensor losses_and_gradient(at::Tensor& logits, const Labels& labels, const Head& head, bool gradient) {
  const ProcessGroup& group = head.group;
  // Finite, so that words which cannot occur (minus infinity) on all of a rank give no NaN.
  const at::Tensor largest = logits.amax(/*dim=*/1, /*keepdim=*/true).clamp_min_(std::numeric_limits<float>::lowest());
  at::Tensor exponentials = logits.sub_(largest);
  const at::Tensor label_logit = exponentials.gather(1, labels.column);
  exponentials.exp_();
  // Each rank's statistics are relative to its own largest logit, so that one exchange suffices.
  const at::Tensor own = at::stack({largest, exponentials.sum(/*dim=*/1, /*keepdim=*/true), label_logit});
  const ShardLayout ranks(group.size(), group.size());
  const at::Tensor all = group.all_gather(own.unsqueeze(0), 0, ranks, head.site);  // [ranks, 3, n, 1]
  const at::Tensor shift = all.select(1, 0) - all.select(1, 0).amax(0);
  const at::Tensor sum = all.select(1, 1).mul(shift.exp()).sum(0);
  const at::Tensor of_label = (all.select(1, 2) + shift).gather(0, labels.owner.unsqueeze(0)).squeeze(0);
  if (gradient) {
    // d loss / d logits_v = softmax_v - [v is the label]
    exponentials.mul_((shift[group.rank()].exp() / sum).masked_fill_(labels.ignored, 0));
    exponentials.scatter_add_(1, labels.column, labels.elsewhere.to(head.type).sub_(1));
  }
  return (sum.log() - of_label).masked_fill_(labels.ignored, 0);
}

void check_shapes(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, const Range& range,
                  int64_t chunk, std::string_view site) {
  const bool fits = hidden.scalar_type() == weight.scalar_type() ||
                    (hidden.scalar_type() == at::kFloat && at::elementSize(weight.scalar_type()) < 4);
  TORCH_CHECK_VALUE(hidden.dim() == 2 && weight.dim() == 2 && weight.size(1) == hidden.size(1) && fits, site,
                    ": hidden is ", hidden.scalar_type(), " ", hidden.sizes(), " and weight ", weight.scalar_type(),
                    " ", weight.sizes(), "; pass [N, D] and [V, D] of one type.");
  TORCH_CHECK_VALUE(weight.size(0) == range.size, site, ": weight has ", weight.size(0), " rows and this rank owns ",
                    range.size, " words; pass [", range.size, ", D].");
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == hidden.size(0), site, ": ", labels.sizes(), " labels for ",
                    hidden.size(0), " rows; pass one label a row.");
  TORCH_CHECK_VALUE(chunk >= 1, site, ": a chunk of ", chunk, " rows is none; use 1 or more.");
}

}  // namespace

at::Tensor vocab_parallel_linear_cross_entropy(const at::Tensor& hidden, const StoredWeight& weight,
                                               const at::Tensor& labels, const ShardLayout& layout,
                                               const ProcessGroup& group, int64_t ignore_index, std::string_view site,
                                               int64_t chunk) {
  const Range range = layout.range(group.rank());
  check_shapes(hidden, weight.values, labels, range, chunk, site);
  check_labels(labels, layout, ignore_index);
  const bool record = at::GradMode::is_enabled();
  const bool hidden_wanted = record && hidden.requires_grad();
  const bool weight_wanted = record && weight.values.requires_grad();

  at::Tensor result;
  at::Tensor hidden_gradient, weight_gradient;
  {
    at::NoGradGuard no_grad;
    const auto type = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Head head{{weight.values.detach(), weight.scale}, range, group, std::string(site), type};
    const Labels all = labels_of(labels, layout, range, ignore_index);
    const int64_t rows = hidden.size(0);
    at::Tensor losses = at::empty({rows, 1}, type);
    if (hidden_wanted) hidden_gradient = at::empty_like(hidden, at::MemoryFormat::Contiguous);
    if (weight_wanted) weight_gradient = at::zeros(weight.values.sizes(), type);
    const int64_t largest = std::min(chunk, rows);
    at::Tensor logits = at::empty({largest, range.size}, hidden.options().requires_grad(false));
    for (int64_t start = 0; start < rows; start += chunk) {
      const int64_t size = std::min(chunk, rows - start);
      const auto part = [&](const at::Tensor& whole) { return whole.narrow(0, start, size); };
      const at::Tensor input = part(hidden.detach());
      const at::Tensor product_rows = logits.narrow(0, 0, size);
      product_out(product_rows, input, head.weight);
      at::Tensor statistics = product_rows.to(type);  // the same memory unless the logits have 16 bits
      const Labels own{part(all.column), part(all.elsewhere), part(all.owner), part(all.ignored)};
      part(losses).copy_(losses_and_gradient(statistics, own, head, hidden_wanted || weight_wanted));
      if (!hidden_wanted && !weight_wanted) continue;
      if (!product_rows.is_same(statistics)) product_rows.copy_(statistics);
      if (hidden_wanted) product_input_gradient_out(part(hidden_gradient), product_rows, head.weight.values);
      if (weight_wanted) add_product_weight_gradient_(weight_gradient, product_rows, input);
    }
    result = losses.sum();
  }
  if (!hidden_wanted && !weight_wanted) return result;
  auto node = c10::make_intrusive<LinearCrossEntropyBackward>(std::move(hidden_gradient), std::move(weight_gradient),
                                                              hidden.scalar_type());
  node->set_next_edges(torch::autograd::collect_next_edges(hidden, weight.values));
  torch::autograd::set_history(result, c10::intrusive_ptr<torch::autograd::Node>(std::move(node)));
  return result;
}

}  // namespace optp

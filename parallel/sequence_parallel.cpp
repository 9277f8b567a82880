#include "parallel/sequence_parallel.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <utility>

#include "parallel/product.h"

namespace optp {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// Edges: the slice, then weight and bias of each product.
class GatheredProductsBackward : public torch::autograd::Node {
 public:
  // `kept` is the slice, or with `whole` the gathered input.
  GatheredProductsBackward(const at::Tensor& kept, bool whole, const std::vector<LinearOperands>& operands,
                           TokenSlices slices, ProcessGroup group, GatherSites sites)
      : kept_(kept, /*is_output=*/false),
        whole_(whole),
        slices_(slices),
        group_(std::move(group)),
        sites_(std::move(sites)) {
    for (const LinearOperands& operand : operands) weights_.emplace_back(operand.weight, /*is_output=*/false);
  }

  variable_list apply(variable_list&& gradients) override {
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    const at::NoGradGuard no_grad;
    variable_list results(num_outputs());
    const auto flows = [&](size_t product, size_t edge) {
      return gradients[product].defined() && task_should_compute_output(edge);
    };
    bool weight_wanted = false;
    for (size_t i = 0; i < gradients.size(); ++i) weight_wanted |= flows(i, 1 + 2 * i);
    at::Tensor input;  // [rows, K]
    if (weight_wanted) {
      input = kept_.unpack();
      if (!whole_) input = group_.all_gather(input, 0, slices_.layout, sites_.regather);
    }
    at::Tensor input_gradient;  // [rows, K], of this rank's output features
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (flows(i, 0)) add_input_gradient(input_gradient, gradients[i], weights_[i].unpack());
      if (flows(i, 1 + 2 * i)) results[1 + 2 * i] = product_weight_gradient(gradients[i], input);
      if (flows(i, 2 + 2 * i)) results[2 + 2 * i] = gradients[i].sum(0);
    }
    if (input_gradient.defined()) {
      results[0] = group_.reduce_scatter(input_gradient, 0, slices_.layout, sites_.backward);
    }
    return results;
  }

  void release_variables() override {
    released_ = true;
    kept_.reset_data();
    for (SavedVariable& weight : weights_) weight.reset_data();
  }
  std::string name() const override { return "optp::GatheredProductsBackward"; }

 private:
  static void add_input_gradient(at::Tensor& sum, const at::Tensor& gradient, const at::Tensor& weight) {
    at::Tensor own = at::empty({gradient.size(0), weight.size(1)}, gradient.options());
    product_input_gradient_out(own, gradient, weight);
    if (sum.defined()) {
      sum.add_(own);
    } else {
      sum = own;
    }
  }

  SavedVariable kept_;
  bool whole_;
  std::vector<SavedVariable> weights_;
  TokenSlices slices_;
  ProcessGroup group_;
  GatherSites sites_;
  bool released_ = false;
};

}  // namespace

std::vector<at::Tensor> gathered_products(const at::Tensor& slice, const std::vector<LinearOperands>& operands,
                                          const TokenSlices& slices, const ProcessGroup& group,
                                          const GatherSites& sites) {
  std::vector<at::Tensor> outputs;
  variable_list inputs{slice};
  at::Tensor whole;
  {
    const at::NoGradGuard no_grad;
    whole = group.all_gather(slice, 0, slices.layout, sites.forward);
    for (const LinearOperands& operand : operands) {
      outputs.push_back(product(whole, operand.weight, operand.bias));
      inputs.push_back(operand.weight);
      inputs.push_back(operand.bias);
    }
  }
  const auto wanted = [](const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); };
  if (!at::GradMode::is_enabled() || std::none_of(inputs.begin(), inputs.end(), wanted)) return outputs;
  const bool keep_whole = !slices.regather && group.size() > 1;
  auto node = c10::make_intrusive<GatheredProductsBackward>(keep_whole ? whole : slice, keep_whole, operands, slices,
                                                            group, sites);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::set_history(outputs, c10::intrusive_ptr<torch::autograd::Node>(std::move(node)));
  return outputs;
}

}  // namespace optp

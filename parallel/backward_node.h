// A history for tensors that were computed outside of autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace optp {

/// Gradients of the outputs (undefined where nothing flows back, never all of them) -> gradients of the inputs. Runs
/// without gradients of its own.
using BackwardFunction = std::function<std::vector<at::Tensor>(std::vector<at::Tensor>)>;

/// Makes `backward` the history of `outputs`, fresh tensors computed from `inputs`, unless no gradient is wanted.
/// A node of our own, since torch::autograd::Function can only carry tensors and IValues from forward to backward, and
/// a process group is neither. `backward` must not hold tensors that could be changed before it runs.
void set_backward(std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs, BackwardFunction backward);

/// The same for one output and one input; returns the output.
at::Tensor with_backward(at::Tensor output, const at::Tensor& input,
                         std::function<at::Tensor(const at::Tensor&)> backward);

}  // namespace optp

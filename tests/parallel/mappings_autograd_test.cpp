// The mappings in graphs that are not a chain: branches, no gradient, memory that autograd saved.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <string>
#include <vector>

#include "parallel/mappings.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::run_ranks;
using testing::same;

class MappingsAutograd : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Tp, MappingsAutograd, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(MappingsAutograd, CopyToSharedByTwoLayersCommunicatesOnce) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const int64_t rank = mesh.tensor().rank();
    const at::Tensor input = integers({4}).requires_grad_();
    const at::Tensor shared = copy_to(input, mesh.tensor(), "copy");
    const at::Tensor output = shared * (rank + 1) + shared * integers({4}, rank);
    output.backward(integers({4}, 5));
    at::Tensor slope = at::zeros({4}, at::kDouble);
    for (int64_t r = 0; r < tp; ++r) slope += integers({4}, r) + (r + 1);
    EXPECT_TRUE(same(input.grad(), integers({4}, 5) * slope));
    if (tp > 1) {
      EXPECT_EQ(mesh.tensor().counts().at("copy").calls, 1);
    }
  });
}

// A residual connection: autograd hands one and the same gradient to both branches, so neither may write to it.
TEST_P(MappingsAutograd, InputUsedBesideCopyToKeepsItsOwnGradient) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const bool copied_first : {false, true}) {
      const at::Tensor leaf = integers({4}).requires_grad_();
      const at::Tensor input = leaf * 1;
      const at::Tensor copied = copy_to(input, mesh.tensor(), "copy");
      const at::Tensor gradient = integers({4}, 5);
      (copied_first ? copied + input : input + copied).backward(gradient);
      EXPECT_TRUE(same(leaf.grad(), integers({4}, 5) * (tp + 1)));
      EXPECT_TRUE(same(gradient, integers({4}, 5)));
    }
  });
}

TEST_P(MappingsAutograd, GradientsAddUpOverSeveralBackwardPasses) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor input = integers({4}).requires_grad_();
    for (int pass = 0; pass < 3; ++pass) {
      reduce_from(copy_to(input, mesh.tensor(), "copy") * 2, mesh.tensor(), "reduce").backward(integers({4}, 5));
    }
    EXPECT_TRUE(same(input.grad(), integers({4}, 5) * (3 * 2 * tp)));
  });
}

// Every mapping of `input`, which has as many rows as there are ranks.
std::vector<at::Tensor> all_mappings(const at::Tensor& input, const ProcessGroup& group) {
  const ShardLayout layout(group.size(), group.size());
  return {copy_to(input, group, "map"), reduce_from(input, group, "map"), scatter_to(input, 0, layout, group, "map"),
          gather_from(input.narrow(0, group.rank(), 1), 0, layout, group, "map"),
          reduce_from_(input * 1, group, "map")};
}

TEST_P(MappingsAutograd, WithoutGradNothingIsRecorded) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto check = [&](const at::Tensor& input) {
      const auto outputs = all_mappings(input, mesh.tensor());
      for (const at::Tensor& output : outputs) EXPECT_FALSE(output.grad_fn());
      const at::Tensor whole = integers({tp, 3});
      EXPECT_TRUE(same(outputs[0], whole));
      EXPECT_TRUE(same(outputs[1], whole * tp));
      EXPECT_TRUE(same(outputs[2], whole.narrow(0, mesh.tensor().rank(), 1)));
      EXPECT_TRUE(same(outputs[3], whole));
      EXPECT_TRUE(same(outputs[4], whole * tp));
      EXPECT_TRUE(same(input.detach(), whole));
    };
    check(integers({tp, 3}));  // needs no gradient
    const at::NoGradGuard no_grad;
    check(integers({tp, 3}).requires_grad_());
  });
}

// Identity without a gradient, as of an output that does not count.
class Discard : public torch::autograd::Function<Discard> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& input) { return input.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    return {at::Tensor()};
  }
};

TEST_P(MappingsAutograd, AnUndefinedGradientStaysUndefinedAndCostsNoCommunication) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (int64_t mapping = 0; mapping < 5; ++mapping) {
      const at::Tensor input = integers({tp, 3}).requires_grad_();
      const at::Tensor output = Discard::apply(all_mappings(input, mesh.tensor())[mapping]);
      ProcessGroup group = mesh.tensor();
      group.reset_counts();
      output.sum().backward();
      EXPECT_FALSE(input.grad().defined()) << "mapping " << mapping;
      EXPECT_TRUE(group.counts().empty()) << "mapping " << mapping;
    }
  });
}

// c10d writes behind autograd's back: the wrong gradient must at least be an error.
TEST_P(MappingsAutograd, ReduceInPlaceOfATensorThatWasSavedThrowsInBackward) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto backward_error = [&](const std::function<at::Tensor(const at::Tensor&)>& operation) {
      const at::Tensor input = integers({2, 3}).requires_grad_();
      const at::Tensor sum = reduce_from_(operation(input), mesh.tensor(), "reduce");
      return message_of([&] { sum.sum().backward(); });
    };
    const char* expected = tp == 1 ? "no error" : "modified by an inplace operation";  // a group of one writes nothing
    EXPECT_THAT(backward_error([](const at::Tensor& x) { return x.exp(); }), HasSubstr(expected));
    EXPECT_THAT(backward_error([](const at::Tensor& x) { return x.relu(); }), HasSubstr(expected));
    EXPECT_THAT(backward_error([](const at::Tensor& x) { return x.exp().t(); }), HasSubstr(expected));
    EXPECT_EQ(backward_error([](const at::Tensor& x) { return x * 2; }), "no error");

    // Saved by a later operation on the same memory.
    const at::Tensor part = integers({2, 3}).requires_grad_() * 2;
    const at::Tensor square = part * part;
    reduce_from_(part, mesh.tensor(), "reduce");
    EXPECT_THAT(message_of([&] { square.sum().backward(); }), HasSubstr(expected));

    // The copying form is right where the other one refuses.
    const at::Tensor input = at::zeros({2, 3}, at::kDouble).requires_grad_();
    reduce_from(input.exp(), mesh.tensor(), "reduce").backward(integers({2, 3}));
    EXPECT_TRUE(same(input.grad(), integers({2, 3})));
  });
}

TEST_P(MappingsAutograd, WrongSizesAreRefusedWithSiteAndValues) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardLayout layout(2 * tp, tp);
    const at::Tensor input = integers({3, 2 * tp + 1});
    EXPECT_EQ(message_of<c10::ValueError>([&] { scatter_to(input, -1, layout, mesh.tensor(), "fc2 backward"); }),
              c10::str("fc2 backward: dimension -1 has ", 2 * tp + 1, " elements and the layout ", 2 * tp,
                       "; they must agree."));
    EXPECT_EQ(message_of<c10::ValueError>([&] { gather_from(input, 0, layout, mesh.tensor(), "head"); }),
              "head: dimension 0 has 3 elements and this rank's range 2; they must agree.");
  });
}

}  // namespace
}  // namespace optp

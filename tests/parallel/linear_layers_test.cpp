// ColumnParallelLinear and RowParallelLinear, each alone, against at::linear on the whole weight.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>

#include <string>
#include <vector>

#include "parallel/column_parallel_linear.h"
#include "parallel/mappings.h"
#include "parallel/row_parallel_linear.h"
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

// A whole linear layer of integers in float64, applied to an input and taken backward.
struct WholeLinear {
  WholeLinear(int64_t in, int64_t out, bool bias = true)
      : layer(torch::nn::LinearOptions(in, out).bias(bias)), input(integers({2, 3, in}, 1).requires_grad_()) {
    layer->to(at::kDouble);
    const at::NoGradGuard no_grad;
    layer->weight.copy_(integers({out, in}, 2));
    if (bias) layer->bias.copy_(integers({out}, 3));
  }

  void run() {
    output = layer->forward(input);
    gradient = integers(output.sizes(), 4);
    output.backward(gradient);
  }

  torch::nn::Linear layer;
  at::Tensor input, output, gradient;
};

struct LinearCase {
  int64_t in, out, block;
};

class LinearLayers : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
  // Dividing evenly by 1, 2, 3, 4; by none of the last three; in blocks that are dealt out evenly or not.
  const std::vector<LinearCase> cases = {{12, 12, 1}, {7, 7, 1}, {12, 12, 3}, {20, 20, 4}};
};

INSTANTIATE_TEST_SUITE_P(Tp, LinearLayers, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(LinearLayers, ColumnEqualsTheRangeOfTheWholeLayer) {
  for (const auto& [in, out, block] : cases) {
    for (const bool bias : {true, false}) {
      WholeLinear whole(in, out, bias);
      whole.run();
      run_ranks(tp, [&, in = in, out = out, block = block](const Mesh& mesh) {
        for (const bool gather : {false, true}) {
          ColumnParallelLinear layer(ColumnParallelLinearOptions(in, out)
                                         .bias(bias)
                                         .block(block)
                                         .gather_output(gather)
                                         .name("fc1")
                                         .tensor_options(at::kDouble),
                                     mesh.tensor());
          copy_from_whole(named_shards(*layer), *whole.layer);
          const Range range = layer->layout().range(mesh.tensor().rank());
          EXPECT_EQ(layer->layout().range(0).size % block, 0);
          EXPECT_EQ(layer->weight.sizes(), (std::vector<int64_t>{range.size, in}));
          EXPECT_EQ(layer->bias.defined(), bias);

          const at::Tensor input = whole.input.detach().clone().requires_grad_();
          const at::Tensor output = layer->forward(input);
          EXPECT_TRUE(same(output.detach(),
                           gather ? whole.output.detach() : whole.output.detach().narrow(-1, range.start, range.size)));
          output.backward(gather ? whole.gradient : whole.gradient.narrow(-1, range.start, range.size));
          EXPECT_TRUE(same(input.grad(), whole.input.grad()));
          EXPECT_TRUE(same(layer->weight.grad(), whole.layer->weight.grad().narrow(0, range.start, range.size)));
          if (bias) {
            EXPECT_TRUE(same(layer->bias.grad(), whole.layer->bias.grad().narrow(0, range.start, range.size)));
          }
        }
        if (tp > 1) {
          EXPECT_EQ(mesh.tensor().counts().at("fc1 forward").calls, 1);  // the gathered output
          EXPECT_EQ(mesh.tensor().counts().at("fc1 backward").calls, 2);
        }
      });
    }
  }
}

TEST_P(LinearLayers, ColumnLayersThatShareTheirInputAddItsGradientOnce) {
  WholeLinear first(5, 9), second(5, 7);
  second.layer->weight.data().neg_();
  second.input = first.input;  // the gradient of both
  first.run();
  second.run();
  run_ranks(tp, [&](const Mesh& mesh) {
    const auto options = [](int64_t out) {
      return ColumnParallelLinearOptions(5, out).copy_input(false).tensor_options(at::kDouble);
    };
    ColumnParallelLinear left(options(9), mesh.tensor()), right(options(7), mesh.tensor());
    copy_from_whole(named_shards(*left), *first.layer);
    copy_from_whole(named_shards(*right), *second.layer);
    const at::Tensor input = first.input.detach().clone().requires_grad_();
    const at::Tensor shared = copy_to(input, mesh.tensor(), "shared");
    const Range left_range = left->layout().range(mesh.tensor().rank());
    const Range right_range = right->layout().range(mesh.tensor().rank());
    const at::Tensor outputs = at::cat({left->forward(shared), right->forward(shared)}, -1);
    outputs.backward(at::cat({first.gradient.narrow(-1, left_range.start, left_range.size),
                              second.gradient.narrow(-1, right_range.start, right_range.size)},
                             -1));
    EXPECT_TRUE(same(input.grad(), first.input.grad()));
    EXPECT_EQ(mesh.tensor().counts().size(), tp > 1 ? 1U : 0U);
    if (tp > 1) {
      EXPECT_EQ(mesh.tensor().counts().at("shared").calls, 1);
    }
  });
}

TEST_P(LinearLayers, RowEqualsTheWholeLayerWithItsBiasAddedOnce) {
  for (const auto& [in, out, block] : cases) {
    for (const bool bias : {true, false}) {
      WholeLinear whole(in, out, bias);
      whole.run();
      run_ranks(tp, [&, in = in, out = out, block = block](const Mesh& mesh) {
        for (const bool parallel : {false, true}) {
          RowParallelLinear layer(RowParallelLinearOptions(in, out)
                                      .bias(bias)
                                      .block(block)
                                      .input_is_parallel(parallel)
                                      .name("fc2")
                                      .tensor_options(at::kDouble),
                                  mesh.tensor());
          copy_from_whole(named_shards(*layer), *whole.layer);
          const Range range = layer->layout().range(mesh.tensor().rank());
          const auto own = [&](const at::Tensor& tensor) {
            return parallel ? tensor.narrow(-1, range.start, range.size) : tensor;
          };
          EXPECT_EQ(layer->weight.sizes(), (std::vector<int64_t>{out, range.size}));

          const at::Tensor input = own(whole.input.detach()).clone().requires_grad_();
          const at::Tensor output = layer->forward(input);
          EXPECT_TRUE(same(output.detach(), whole.output.detach()));
          output.backward(whole.gradient);
          EXPECT_TRUE(same(input.grad(), own(whole.input.grad())));
          EXPECT_TRUE(same(layer->weight.grad(), whole.layer->weight.grad().narrow(1, range.start, range.size)));
          ASSERT_EQ(layer->bias.defined(), bias);
          if (bias) {
            EXPECT_TRUE(same(layer->bias.grad(), whole.layer->bias.grad()));
          }
        }
        if (tp > 1) {
          EXPECT_EQ(mesh.tensor().counts().at("fc2 forward").calls, 2);
          EXPECT_EQ(mesh.tensor().counts().at("fc2 backward").calls, 1);  // the input that was whole
        }
      });
    }
  }
}

TEST(LinearLayersErrors, TooManyRanksAreRefusedWithTheValues) {
  run_ranks(3, [](const Mesh& mesh) {
    const auto& group = mesh.tensor();
    EXPECT_THAT(
        message_of<c10::ValueError>([&] { ColumnParallelLinear(ColumnParallelLinearOptions(5, 8).block(4), group); }),
        HasSubstr("a dimension of 8 in blocks of 4 cannot be shared by 3 ranks: use 1 to 2."));
    EXPECT_THAT(message_of<c10::ValueError>([&] { RowParallelLinear(RowParallelLinearOptions(2, 8), group); }),
                HasSubstr("a dimension of 2 in blocks of 1 cannot be shared by 3 ranks: use 1 to 2."));
  });
}

}  // namespace
}  // namespace optp

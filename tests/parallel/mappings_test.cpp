// The mappings, forward and backward, against what one process computes on the whole tensors.
#include "parallel/mappings.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::integers;
using testing::run_ranks;
using testing::same;

class Mappings : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
  const int64_t triangle = tp * (tp + 1) / 2;

  // Calls `body` for layouts that divide evenly and not, on every dimension of a matrix, with the whole shape.
  using LayoutBody = std::function<void(const ShardLayout&, int64_t dim, const std::vector<int64_t>& shape)>;
  void for_layouts(const LayoutBody& body) const {
    for (const ShardLayout& layout : {ShardLayout(2 * tp, tp), ShardLayout(2 * tp + 1, tp)}) {
      for (const int64_t dim : {0, 1, -1}) {
        std::vector<int64_t> shape{3, 3};
        shape[dim < 0 ? 1 : dim] = layout.total();
        body(layout, dim, shape);
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Tp, Mappings, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(Mappings, CopyToIsIdentityAndAddsGradients) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor input = integers({2, 3}).requires_grad_();
    const at::Tensor output = copy_to(input, mesh.tensor(), "copy");
    EXPECT_TRUE(same(output.detach(), input.detach()));
    EXPECT_TRUE(mesh.tensor().counts().empty());
    output.backward(integers({2, 3}, 5) * (mesh.tensor().rank() + 1));
    EXPECT_TRUE(same(input.grad(), integers({2, 3}, 5) * triangle));
  });
}

TEST_P(Mappings, ReduceFromAddsAndPassesTheGradientOn) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const bool in_place : {false, true}) {
      const at::Tensor input = integers({2, 3}).requires_grad_();
      const at::Tensor part = input * (mesh.tensor().rank() + 1);
      const at::Tensor output =
          in_place ? reduce_from_(part, mesh.tensor(), "reduce") : reduce_from(part, mesh.tensor(), "reduce");
      EXPECT_TRUE(same(output.detach(), integers({2, 3}) * triangle));
      if (!in_place) {
        EXPECT_TRUE(same(part.detach(), integers({2, 3}) * (mesh.tensor().rank() + 1)));
      }
      output.backward(integers({2, 3}, 5));
      EXPECT_TRUE(same(input.grad(), integers({2, 3}, 5) * (mesh.tensor().rank() + 1)));
    }
    if (tp > 1) {
      EXPECT_EQ(mesh.tensor().counts().at("reduce").calls, 2);  // none in backward
    }
  });
}

TEST_P(Mappings, ReduceFromTakesTensorsThatAreNotContiguous) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor input = integers({2, 3}).requires_grad_();
    const at::Tensor part = (input * (mesh.tensor().rank() + 1)).t();
    const at::Tensor output = reduce_from_(part, mesh.tensor(), "reduce");
    EXPECT_TRUE(same(output.detach(), integers({2, 3}).t() * triangle));
    output.backward(integers({3, 2}, 5));
    EXPECT_TRUE(same(input.grad(), integers({3, 2}, 5).t() * (mesh.tensor().rank() + 1)));
  });
}

TEST_P(Mappings, ScatterToTakesTheRangeAndGathersGradients) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for_layouts([&](const ShardLayout& layout, int64_t dim, const std::vector<int64_t>& shape) {
      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor input = integers(shape).requires_grad_();
      const at::Tensor output = scatter_to(input, dim, layout, mesh.tensor(), "scatter");
      EXPECT_TRUE(same(output.detach(), integers(shape).narrow(dim, range.start, range.size)));
      output.backward(integers(shape, 5).narrow(dim, range.start, range.size));
      EXPECT_TRUE(same(input.grad(), integers(shape, 5)));
    });
  });
}

TEST_P(Mappings, GatherFromPutsPartsTogetherAndTakesTheRangeOfGradients) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for_layouts([&](const ShardLayout& layout, int64_t dim, const std::vector<int64_t>& shape) {
      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor input = integers(shape).narrow(dim, range.start, range.size).clone().requires_grad_();
      const at::Tensor output = gather_from(input, dim, layout, mesh.tensor(), "gather");
      EXPECT_TRUE(same(output.detach(), integers(shape)));
      output.backward(integers(shape, 5));
      EXPECT_TRUE(same(input.grad(), integers(shape, 5).narrow(dim, range.start, range.size)));
    });
  });
}

// y = sum_r x w_r, as a column-parallel layer followed by a row-parallel one.
TEST_P(Mappings, CopyToThenReduceFromEqualOneProcess) {
  const at::Tensor x = integers({2, 3}).requires_grad_();
  std::vector<at::Tensor> weights;
  at::Tensor y = at::zeros({2, 3}, at::kDouble);
  for (int64_t rank = 0; rank < tp; ++rank) {
    weights.push_back(integers({2, 3}, 2 * rank + 1).requires_grad_());
    y = y + x * weights.back();
  }
  y.backward(integers({2, 3}, 5));

  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor input = integers({2, 3}).requires_grad_();
    const at::Tensor weight = integers({2, 3}, 2 * mesh.tensor().rank() + 1).requires_grad_();
    const at::Tensor output = reduce_from_(copy_to(input, mesh.tensor(), "copy") * weight, mesh.tensor(), "reduce");
    EXPECT_TRUE(same(output.detach(), y.detach()));
    output.backward(integers({2, 3}, 5));
    EXPECT_TRUE(same(input.grad(), x.grad()));
    EXPECT_TRUE(same(weight.grad(), weights[mesh.tensor().rank()].grad()));
  });
}

// y = x w elementwise, with x whole on every rank and w sharded.
TEST_P(Mappings, ScatterToThenGatherFromEqualOneProcess) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for_layouts([&](const ShardLayout& layout, int64_t dim, const std::vector<int64_t>& shape) {
      const at::Tensor x = integers(shape).requires_grad_();
      const at::Tensor w = integers(shape, 2).requires_grad_();
      const at::Tensor y = x * w;
      y.backward(integers(shape, 5));

      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor input = integers(shape).requires_grad_();
      const at::Tensor weight = integers(shape, 2).narrow(dim, range.start, range.size).clone().requires_grad_();
      const at::Tensor part = scatter_to(input, dim, layout, mesh.tensor(), "scatter") * weight;
      const at::Tensor output = gather_from(part, dim, layout, mesh.tensor(), "gather");
      EXPECT_TRUE(same(output.detach(), y.detach()));
      output.backward(integers(shape, 5));
      EXPECT_TRUE(same(input.grad(), x.grad()));
      EXPECT_TRUE(same(weight.grad(), w.grad().narrow(dim, range.start, range.size)));
    });
  });
}

TEST_P(Mappings, AllGatherToPutsPartsTogetherAndAddsTheGradientsOfItsPart) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for_layouts([&](const ShardLayout& layout, int64_t dim, const std::vector<int64_t>& shape) {
      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor input = integers(shape).narrow(dim, range.start, range.size).clone().requires_grad_();
      const at::Tensor output = all_gather_to(input, dim, layout, mesh.tensor(), "gather", "gather backward");
      EXPECT_TRUE(same(output.detach(), integers(shape)));
      output.backward(integers(shape, 5) * (mesh.tensor().rank() + 1));
      EXPECT_TRUE(same(input.grad(), integers(shape, 5).narrow(dim, range.start, range.size) * triangle));
    });
  });
}

TEST_P(Mappings, ReduceScatterFromAddsAndKeepsTheRangeAndGathersGradients) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for_layouts([&](const ShardLayout& layout, int64_t dim, const std::vector<int64_t>& shape) {
      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor input = integers(shape).requires_grad_();
      const at::Tensor output = reduce_scatter_from(input * (mesh.tensor().rank() + 1), /*bias=*/{}, dim, layout,
                                                    mesh.tensor(), "scatter", "scatter backward");
      EXPECT_TRUE(same(output.detach(), integers(shape).narrow(dim, range.start, range.size) * triangle));
      output.backward(integers(shape, 5).narrow(dim, range.start, range.size));
      EXPECT_TRUE(same(input.grad(), integers(shape, 5) * (mesh.tensor().rank() + 1)));
    });
  });
}

TEST_P(Mappings, ReduceScatterFromAddsTheBiasOnceAndGivesItTheWholeGradient) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const ShardLayout& layout : {ShardLayout(2 * tp, tp), ShardLayout(2 * tp + 1, tp)}) {
      const std::vector<int64_t> shape{layout.total(), 3};
      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor input = integers(shape).requires_grad_();
      const at::Tensor bias = integers({3}, 2).requires_grad_();
      const at::Tensor output =
          reduce_scatter_from(input * 1, bias, 0, layout, mesh.tensor(), "scatter", "scatter backward");
      EXPECT_TRUE(same(output.detach(), (integers(shape) * tp + integers({3}, 2)).narrow(0, range.start, range.size)));
      output.backward(integers(shape, 5).narrow(0, range.start, range.size));
      EXPECT_TRUE(same(input.grad(), integers(shape, 5)));
      EXPECT_TRUE(same(bias.grad(), integers(shape, 5).sum(0)));
      if (tp > 1) {
        EXPECT_EQ(mesh.tensor().counts().size(), 2U);  // the bias sends nothing
      }
    }
  });
}

TEST_P(Mappings, CopyToOfSeveralAddsTheirGradientsInOneCall) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const int64_t factor = mesh.tensor().rank() + 1;
    const at::Tensor a = integers({2, 3}).requires_grad_();
    const at::Tensor b = integers({4}, 2).requires_grad_();
    const at::Tensor frozen = integers({2}, 3);
    const at::Tensor unused = integers({5}, 4).requires_grad_();
    const auto copies = copy_to({a, at::Tensor(), b, frozen, unused}, mesh.tensor(), "copy");
    ASSERT_EQ(copies.size(), 5U);
    EXPECT_TRUE(same(copies[0].detach(), integers({2, 3})));
    EXPECT_FALSE(copies[1].defined());
    EXPECT_TRUE(same(copies[2].detach(), integers({4}, 2)));
    EXPECT_FALSE(copies[3].requires_grad());
    ((copies[0] * integers({2, 3}, 5)).sum() * factor + (copies[2] * integers({4}, 6)).sum() * factor).backward();
    EXPECT_TRUE(same(a.grad(), integers({2, 3}, 5) * triangle));
    EXPECT_TRUE(same(b.grad(), integers({4}, 6) * triangle));
    EXPECT_FALSE(unused.grad().defined());
    if (tp > 1) {
      EXPECT_EQ(mesh.tensor().counts().at("copy").calls, 1);
      EXPECT_EQ(mesh.tensor().counts().at("copy").bytes, 10 * 8);
    }
  });
}

// y = sum_r x w_r + b on slices of the rows, as a sequence-parallel block.
TEST_P(Mappings, AllGatherToThenReduceScatterFromEqualOneProcess) {
  const std::vector<int64_t> shape{2 * tp + 1, 3};
  const ShardLayout layout(2 * tp + 1, tp);
  const at::Tensor x = integers(shape).requires_grad_();
  const at::Tensor bias = integers({3}, 4).requires_grad_();
  std::vector<at::Tensor> weights;
  at::Tensor y = at::zeros(shape, at::kDouble);
  for (int64_t rank = 0; rank < tp; ++rank) {
    weights.push_back(integers(shape, 2 * rank + 1).requires_grad_());
    y = y + x * weights.back();
  }
  y = y + bias;
  y.backward(integers(shape, 5));

  run_ranks(tp, [&](const Mesh& mesh) {
    const Range range = layout.range(mesh.tensor().rank());
    const auto own = [&](const at::Tensor& whole) { return whole.detach().narrow(0, range.start, range.size); };
    const at::Tensor input = own(x).clone().requires_grad_();
    const at::Tensor weight = integers(shape, 2 * mesh.tensor().rank() + 1).requires_grad_();
    const at::Tensor own_bias = integers({3}, 4).requires_grad_();
    const at::Tensor whole = all_gather_to(input, 0, layout, mesh.tensor(), "gather", "gather backward");
    const at::Tensor output =
        reduce_scatter_from(whole * weight, own_bias, 0, layout, mesh.tensor(), "scatter", "scatter backward");
    EXPECT_TRUE(same(output.detach(), own(y)));
    output.backward(own(integers(shape, 5)));
    EXPECT_TRUE(same(input.grad(), own(x.grad())));
    EXPECT_TRUE(same(weight.grad(), weights[mesh.tensor().rank()].grad()));
    EXPECT_TRUE(same(own_bias.grad(), bias.grad()));
  });
}

}  // namespace
}  // namespace optp

// The collectives of ProcessGroup at every degree, on integers: sums are exact in every type.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "parallel/process_group.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using c10d::ReduceOp;
using testing::integers;
using testing::run_ranks;
using testing::same;

const std::vector<at::ScalarType> kTypes = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong};

class Collectives : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
  // Rank r contributes (r + 1) times the same numbers: what the sum is a multiple of.
  const int64_t triangle = tp * (tp + 1) / 2;
  // Layouts that divide evenly, that do not, and with blocks.
  const std::vector<ShardLayout> layouts = {{2 * tp, tp}, {2 * tp + 1, tp}, {3 * (tp + 1), tp, 3}};
};

INSTANTIATE_TEST_SUITE_P(Tp, Collectives, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(Collectives, AllReduceAddsInEveryType) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const at::ScalarType type : kTypes) {
      const at::Tensor base = integers({5, 7}, 0, type);
      at::Tensor tensor = base * (mesh.tensor().rank() + 1);
      mesh.tensor().all_reduce_(tensor, "sum");
      EXPECT_TRUE(same(tensor, base * triangle));
    }
  });
}

TEST_P(Collectives, AllReduceTakesTheLargestInEveryType) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const at::ScalarType type : kTypes) {
      at::Tensor expected = integers({5, 7}, 0, type);
      for (int64_t rank = 1; rank < tp; ++rank) expected = at::maximum(expected, integers({5, 7}, 4 * rank, type));
      at::Tensor tensor = integers({5, 7}, 4 * mesh.tensor().rank(), type);
      mesh.tensor().all_reduce_(tensor, "largest", ReduceOp::RedOpType::MAX);
      EXPECT_TRUE(same(tensor, expected));
    }
  });
}

TEST_P(Collectives, AllReduceOfAViewLeavesItsSurroundingsAlone) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const at::Tensor base = integers({6, 8});
    at::Tensor whole = base * (mesh.tensor().rank() + 1);
    at::Tensor odd_rows = whole.slice(0, 1, 6, 2).t();
    ASSERT_FALSE(odd_rows.is_contiguous());
    mesh.tensor().all_reduce_(odd_rows, "view");
    EXPECT_TRUE(same(whole.slice(0, 1, 6, 2), base.slice(0, 1, 6, 2) * triangle));
    EXPECT_TRUE(same(whole.slice(0, 0, 6, 2), base.slice(0, 0, 6, 2) * (mesh.tensor().rank() + 1)));
  });
}

TEST_P(Collectives, AllReduceEndsWithTheSameBitsOnEveryRank) {
  run_ranks(tp, [&](const Mesh& mesh) {
    // Long enough for a ring of chunks whose last is shorter, and with fractions, so that the order of addends matters.
    const at::Tensor base = at::arange(100003, at::kFloat);
    at::Tensor tensor = (base * (0.1 + mesh.tensor().rank())).sin() * 1000;
    mesh.tensor().all_reduce_(tensor, "bits");
    const at::Tensor all = mesh.tensor().all_gather(tensor.unsqueeze(0), 0, {tp, tp}, "compare");
    for (int64_t rank = 0; rank < tp; ++rank) EXPECT_TRUE(all[rank].equal(tensor)) << "rank " << rank;
  });
}

TEST_P(Collectives, AllGatherPutsPartsTogetherAlongAnyDimension) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const ShardLayout& layout : layouts) {
      const Range range = layout.range(mesh.tensor().rank());
      for (const int64_t dim : {0, 1, 2, -1}) {
        std::vector<int64_t> shape{2, 3, 5};
        shape[dim < 0 ? dim + 3 : dim] = layout.total();
        for (const at::ScalarType type : {at::kFloat, at::kLong}) {
          const at::Tensor whole = integers(shape, 3, type);
          const at::Tensor part = whole.narrow(dim, range.start, range.size);
          EXPECT_TRUE(same(mesh.tensor().all_gather(part, dim, layout, "gather"), whole)) << "dim " << dim;
          EXPECT_TRUE(same(whole, integers(shape, 3, type)));
        }
      }
    }
  });
}

TEST_P(Collectives, ReduceScatterAddsAndKeepsTheRangeOfTheRank) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (const ShardLayout& layout : layouts) {
      const Range range = layout.range(mesh.tensor().rank());
      for (const int64_t dim : {0, 1, -1}) {
        std::vector<int64_t> shape{4, 3};
        shape[dim < 0 ? 1 : dim] = layout.total();
        const at::Tensor base = integers(shape);
        const at::Tensor whole = base * (mesh.tensor().rank() + 1);
        const at::Tensor part = mesh.tensor().reduce_scatter(whole, dim, layout, "scatter");
        EXPECT_TRUE(same(part, (base * triangle).narrow(dim, range.start, range.size))) << "dim " << dim;
        EXPECT_TRUE(same(whole, base * (mesh.tensor().rank() + 1)));
      }
    }
  });
}

TEST_P(Collectives, ReduceScatterAddsInEveryTypeAndOwnsItsMemory) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const ShardLayout layout(2 * tp + 1, tp);
    const Range range = layout.range(mesh.tensor().rank());
    for (const at::ScalarType type : kTypes) {
      const at::Tensor base = integers({2 * tp + 1, 3}, 0, type);
      const at::Tensor part = mesh.tensor().reduce_scatter(base * (mesh.tensor().rank() + 1), 0, layout, "scatter");
      EXPECT_TRUE(same(part, (base * triangle).narrow(0, range.start, range.size)));
      if (tp > 1) {
        EXPECT_EQ(part.storage().nbytes(), part.nbytes());
      }
    }
  });
}

// 1 and then 2^-8, half a unit in its last place, from every other rank: alone each is rounded away in bfloat16, two or
// three together are not.
TEST_P(Collectives, SumsOfBFloat16AreTakenInFloat32) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const double own = mesh.tensor().rank() == 0 ? 1 : 0x1p-8;
    const double sum = 1 + static_cast<double>(tp - 1) * 0x1p-8;
    const at::Tensor addend = at::full({2 * tp}, own, at::kBFloat16);
    at::Tensor all = addend.clone();
    mesh.tensor().all_reduce_(all, "sum");
    EXPECT_TRUE(same(all, at::full({2 * tp}, sum, at::kBFloat16)));
    const at::Tensor part = mesh.tensor().reduce_scatter(addend, 0, {2 * tp, tp}, "scatter");
    EXPECT_TRUE(same(part, at::full({2}, sum, at::kBFloat16)));
  });
}

TEST_P(Collectives, BroadcastComesFromEachRoot) {
  run_ranks(tp, [&](const Mesh& mesh) {
    for (int64_t root = 0; root < tp; ++root) {
      for (const at::ScalarType type : kTypes) {
        at::Tensor tensor = integers({3, 4}, mesh.tensor().rank(), type);
        mesh.tensor().broadcast_(tensor, root, "contiguous");
        EXPECT_TRUE(same(tensor, integers({3, 4}, root, type))) << "root " << root;
      }
      at::Tensor whole = integers({3, 4}, mesh.tensor().rank());
      at::Tensor middle = whole.narrow(1, 1, 2);
      mesh.tensor().broadcast_(middle, root, "view");
      EXPECT_TRUE(same(middle, integers({3, 4}, root).narrow(1, 1, 2))) << "root " << root;
      EXPECT_TRUE(same(whole.narrow(1, 3, 1), integers({3, 4}, mesh.tensor().rank()).narrow(1, 3, 1)));
    }
  });
}

TEST_P(Collectives, NobodyLeavesABarrierBeforeAllAreThere) {
  std::atomic<int64_t> arrived = 0;
  run_ranks(tp, [&](const Mesh& mesh) {
    if (mesh.tensor().rank() == 0) arrived = 0;
    mesh.tensor().barrier("begin");
    for (int64_t round = 1; round <= 20; ++round) {
      ++arrived;
      mesh.tensor().barrier("arrive");
      EXPECT_EQ(arrived, round * tp);
      mesh.tensor().barrier("leave");
    }
  });
}

TEST_P(Collectives, ReduceATensorThatRequiresGradWithoutHistory) {
  run_ranks(tp, [&](const Mesh& mesh) {
    at::Tensor tensor = integers({3}).requires_grad_();
    mesh.tensor().all_reduce_(tensor, "leaf");
    EXPECT_TRUE(same(tensor.detach(), integers({3}) * tp));
    EXPECT_TRUE(tensor.is_leaf());
  });
}

}  // namespace
}  // namespace optp

// Mesh: which world ranks meet on which axis, and what is refused.
#include "parallel/mesh.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <chrono>
#include <csignal>
#include <string>
#include <utility>

#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::run_ranks;
using testing::run_ranks_over;
using testing::same;

class MeshAxes : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {};

INSTANTIATE_TEST_SUITE_P(Meshes, MeshAxes,
                         ::testing::Values(std::pair{1, 1}, std::pair{3, 1}, std::pair{1, 3}, std::pair{2, 2},
                                           std::pair{2, 3}),
                         [](const auto& test) { return c10::str("Tp", test.param.first, "Dp", test.param.second); });

// Every rank marks its world rank; the sum over a group shows who is in it.
TEST_P(MeshAxes, JoinTheRanksThatBelongTogether) {
  const auto [tp, dp] = GetParam();
  run_ranks(tp, dp, [tp = tp, dp = dp](const Mesh& mesh) {
    const int64_t rank = mesh.world().rank();
    EXPECT_EQ(mesh.world().size(), tp * dp);
    EXPECT_EQ(mesh.tensor().size(), tp);
    EXPECT_EQ(mesh.data().size(), dp);
    EXPECT_EQ(mesh.tensor().rank(), rank % tp);
    EXPECT_EQ(mesh.data().rank(), rank / tp);

    const auto members = [&](const ProcessGroup& group) {
      at::Tensor marks = at::zeros({tp * dp}, at::kLong);
      marks[rank] = 1;
      group.all_reduce_(marks, "members");
      return marks;
    };
    const at::Tensor ranks = at::arange(tp * dp, at::kLong);
    EXPECT_TRUE(same(members(mesh.tensor()), ranks.floor_divide(tp).eq(rank / tp).to(at::kLong)));
    EXPECT_TRUE(same(members(mesh.data()), ranks.remainder(tp).eq(rank % tp).to(at::kLong)));
    EXPECT_TRUE(same(members(mesh.world()), at::ones_like(ranks)));

    if (tp > 1) {
      EXPECT_EQ(mesh.tensor().name(), "tensor");
    }
    if (dp > 1) {
      EXPECT_EQ(mesh.data().name(), "data");
    }
    if (tp * dp > 1) {
      EXPECT_EQ(mesh.world().name(), "world");
    }
  });
}

TEST(Mesh, DefaultIsOneRank) {
  const Mesh mesh;
  for (const ProcessGroup& group : {mesh.tensor(), mesh.data(), mesh.world()}) {
    EXPECT_EQ(group.rank(), 0);
    EXPECT_EQ(group.size(), 1);
  }
}

TEST(Mesh, APeerThatIsGoneEndsNoProcessBySignal) {
  std::signal(SIGPIPE, SIG_DFL);
  run_ranks_over(Mesh::Comm::gloo, 2, 1, [](const Mesh& mesh) {
    if (mesh.world().rank() == 0) raise(SIGPIPE);
  });
}

TEST(MeshErrors, WrongSizesAreRefusedWithTheirValues) {
  const auto mesh_error = [](int64_t rank, int64_t world_size, int64_t tp, int64_t dp) {
    auto store = c10::make_intrusive<c10d::HashStore>();
    return message_of<c10::ValueError>([&] { Mesh(store, rank, world_size, {.tp = tp, .dp = dp}); });
  };
  EXPECT_EQ(mesh_error(0, 4, 2, 3),
            "a mesh of tp 2 x dp 3 needs 6 ranks, but there are 4: start as many ranks as tp x dp.");
  EXPECT_THAT(mesh_error(0, 1, 2, 1), HasSubstr("tp 2 x dp 1 needs 2 ranks, but there are 1"));
  EXPECT_THAT(mesh_error(0, 0, 0, 1), HasSubstr("tp 0 x dp 1"));
  EXPECT_THAT(mesh_error(0, 4, -2, -2), HasSubstr("tp -2 x dp -2"));
  EXPECT_THAT(mesh_error(2, 2, 2, 1), HasSubstr("rank 2 is outside a world of 2"));
  EXPECT_THAT(mesh_error(-1, 2, 2, 1), HasSubstr("rank -1 is outside a world of 2"));
  EXPECT_EQ(mesh_error(0, 1, 1, 1), "no error");
}

TEST(MeshErrors, ARankThatNeverComesRunsIntoTheTimeLimit) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(
      message_of<c10::DistBackendError>([&] { Mesh(store, 0, 2, {.tp = 2, .timeout = std::chrono::seconds(1)}); }),
      HasSubstr("rank 0 of 2 of the world group could not connect over 127.0.0.1 within 1 s"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

}  // namespace
}  // namespace optp

// Texts from every rank, and errors that all ranks share.
#include "parallel/agreement.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "tests/support/errors.h"
#include "tests/support/ranks.h"

namespace optp::testing {
namespace {

TEST(Agreement, TextsOfAnyLengthComeFromEveryRank) {
  run_ranks(3, [](const Mesh& mesh) {
    const int64_t rank = mesh.world().rank();
    const std::vector<std::string> expected = {"", std::string("a\0b", 3), std::string(100000, 'c')};
    EXPECT_EQ(all_gather_text(expected[rank], mesh.world(), "test"), expected);
    EXPECT_EQ(all_gather_text("", mesh.world(), "test"), std::vector<std::string>(3));
  });
  EXPECT_EQ(all_gather_text("alone", Mesh().world(), "test"), std::vector<std::string>{"alone"});
}

TEST(Agreement, AnErrorOfOneRankIsAnErrorOfAll) {
  run_ranks(3, [](const Mesh& mesh) {
    const int64_t rank = mesh.world().rank();
    int done = 0;
    run_on_all(mesh.world(), "test", [&] { ++done; });
    EXPECT_EQ(done, 1);
    const auto error_of = [&](const std::function<void()>& work) {
      return message_of<c10::ValueError>([&] { run_on_all(mesh.world(), "test", work); });
    };
    EXPECT_EQ(error_of([&] { TORCH_CHECK_VALUE(rank != 1, "no space."); }), "on rank 1: no space.");
    EXPECT_EQ(error_of([&] { TORCH_CHECK(rank == 0, "internal ", rank); }), "on rank 1: internal 1");
    EXPECT_EQ(error_of([&] { TORCH_CHECK_VALUE(false, "the same."); }), "the same.");
    EXPECT_EQ(error_of([&] {
                if (rank == 2) throw std::bad_alloc();
              }),
              "on rank 2: out of memory.");
    EXPECT_EQ(error_of([&] {
                if (rank == 0) throw std::runtime_error("");
              }),
              "on rank 0: unknown error");
  });
}

TEST(Agreement, AloneItIsAPlainCall) {
  EXPECT_THROW(run_on_all(Mesh().world(), "test", [] { throw std::runtime_error("mine"); }), std::runtime_error);
}

}  // namespace
}  // namespace optp::testing

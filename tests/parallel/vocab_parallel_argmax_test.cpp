// Check "generation": the likeliest token of a sharded vocabulary.
#include "parallel/vocab_parallel_argmax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

TEST(VocabParallelArgmax, IsTheArgmaxOfTheWholeWithTheSmallestIdOfATie) {
  const at::Tensor whole = testing::integers({13, 23}).to(at::kFloat);  // every row holds its largest number twice
  const at::Tensor expected = whole.argmax(1);
  for (const int64_t tp : {1, 2, 3, 4}) {
    testing::run_ranks(tp, [&](const Mesh& mesh) {
      const ShardLayout layout(23, tp);
      const Range range = layout.range(mesh.tensor().rank());
      const at::Tensor ids = vocab_parallel_argmax(whole.narrow(1, range.start, range.size), layout, mesh.tensor());
      EXPECT_TRUE(testing::same(ids, expected)) << "tp " << tp;
    });
  }
}

TEST(VocabParallelArgmax, NamesScoresThatAreNoNumbersOnEveryRank) {
  testing::run_ranks(2, [](const Mesh& mesh) {
    at::Tensor scores = at::zeros({1, 2});
    if (mesh.tensor().rank() == 1) scores[0][0] = NAN;
    const ShardLayout layout(4, 2);
    EXPECT_THAT(
        testing::message_of<c10::ValueError>([&] { vocab_parallel_argmax(scores, layout, mesh.tensor(), "generate"); }),
        ::testing::HasSubstr("NaN"));
  });
}

}  // namespace
}  // namespace optp

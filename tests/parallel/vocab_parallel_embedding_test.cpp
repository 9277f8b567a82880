// VocabParallelEmbedding against torch::nn::Embedding on the whole table.
#include "parallel/vocab_parallel_embedding.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/embedding.h>

#include <optional>
#include <string>
#include <vector>

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

class VocabEmbedding : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Tp, VocabEmbedding, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

TEST_P(VocabEmbedding, EqualsTheWholeTable) {
  for (const int64_t words : {24, 23, 257}) {
    // The first row of a rank, the last one, none; rank 0's row 0 is where ids of other ranks are looked up.
    for (const std::optional<int64_t> padding :
         {std::optional<int64_t>(), std::optional<int64_t>(0), std::optional<int64_t>(1),
          std::optional<int64_t>(words / 2), std::optional<int64_t>(words - 1)}) {
      torch::nn::EmbeddingOptions options(words, 3);
      options.padding_idx() = padding;
      torch::nn::Embedding whole(options);
      whole->to(at::kDouble);
      whole->weight.data().copy_(integers({words, 3}));
      // Every id, some of them more than once.
      const at::Tensor ids = at::cat({at::arange(words, at::kLong), at::arange(words / 2, at::kLong)}).flip(0);
      const at::Tensor expected = whole->forward(ids.view({1, -1}));
      const at::Tensor gradient = integers(expected.sizes(), 5);
      expected.backward(gradient);

      run_ranks(tp, [&](const Mesh& mesh) {
        VocabParallelEmbedding layer(
            VocabParallelEmbeddingOptions(words, 3).padding_idx(padding).name("embed").tensor_options(at::kDouble),
            mesh.tensor());
        copy_from_whole(named_shards(*layer), *whole);
        const Range range = layer->layout().range(mesh.tensor().rank());
        EXPECT_EQ(layer->weight.size(0), range.size);
        const at::Tensor output = layer->forward(ids.view({1, -1}));
        EXPECT_TRUE(same(output.detach(), expected.detach()));
        output.backward(gradient);
        EXPECT_TRUE(same(layer->weight.grad(), whole->weight.grad().narrow(0, range.start, range.size)));
        if (tp > 1) {
          EXPECT_EQ(mesh.tensor().counts().at("embed forward").calls, 1);
        }
        EXPECT_EQ(mesh.tensor().counts().size(), tp > 1 ? 1U : 0U);  // none in backward
      });
    }
  }
}

// A vocabulary that no degree from 2 to 4 divides: ids on both sides of every border between ranks.
TEST_P(VocabEmbedding, UnevenVocabularyOf50257) {
  at::Tensor table = integers({50257, 2});
  std::vector<int64_t> borders{0, 50256};
  const ShardLayout layout(50257, tp);
  for (int64_t rank = 1; rank < tp; ++rank) {
    borders.insert(borders.end(), {layout.range(rank).start - 1, layout.range(rank).start});
  }
  const at::Tensor ids = at::tensor(borders, at::kLong);
  run_ranks(tp, [&](const Mesh& mesh) {
    VocabParallelEmbedding layer(VocabParallelEmbeddingOptions(50257, 2).tensor_options(at::kDouble), mesh.tensor());
    copy_from_whole(named_shards(*layer), [&](const std::string&) -> at::Tensor { return table; });
    EXPECT_TRUE(same(layer->forward(ids).detach(), table.index_select(0, ids)));
  });
}

TEST_P(VocabEmbedding, TakesIdsOfAnyShape) {
  run_ranks(tp, [&](const Mesh& mesh) {
    VocabParallelEmbedding layer(VocabParallelEmbeddingOptions(9, 3).tensor_options(at::kDouble), mesh.tensor());
    copy_from_whole(named_shards(*layer), [](const std::string&) { return integers({9, 3}); });
    EXPECT_TRUE(same(layer->forward(at::full({}, 7, at::kLong)).detach(), integers({9, 3})[7]));
    EXPECT_EQ(layer->forward(at::zeros({2, 3, 4}, at::kLong)).sizes(), (std::vector<int64_t>{2, 3, 4, 3}));
    EXPECT_EQ(layer->forward(at::zeros({2, 0}, at::kLong)).sizes(), (std::vector<int64_t>{2, 0, 3}));
  });
}

TEST_P(VocabEmbedding, IdsOutsideTheVocabularyAreRefusedOnEveryRank) {
  run_ranks(tp, [&](const Mesh& mesh) {
    VocabParallelEmbedding layer(VocabParallelEmbeddingOptions(23, 3), mesh.tensor());
    const auto id_error = [&](int64_t id) {
      return message_of<c10::IndexError>([&] { layer->forward(at::tensor({int64_t{4}, id, int64_t{5}})); });
    };
    EXPECT_EQ(id_error(23), "id 23 is outside the vocabulary of 23; use ids from 0 to 22.");
    EXPECT_EQ(id_error(-1), "id -1 is outside the vocabulary of 23; use ids from 0 to 22.");
    EXPECT_EQ(id_error(22), "no error");
    // All ranks refused together: the group still works.
    EXPECT_EQ(layer->forward(at::zeros({2}, at::kLong)).size(0), 2);
  });
}

TEST(VocabEmbeddingErrors, APaddingIdOutsideTheVocabularyIsRefused) {
  for (const int64_t padding : {-1, 23}) {
    EXPECT_EQ(message_of<c10::ValueError>([&] {
                VocabParallelEmbedding(VocabParallelEmbeddingOptions(23, 3).padding_idx(padding), ProcessGroup());
              }),
              c10::str("padding_idx ", padding, " is outside the vocabulary of 23; use an id from 0 to 22."));
  }
}

TEST(VocabEmbeddingErrors, TooManyRanksAreRefusedWithTheValues) {
  run_ranks(3, [](const Mesh& mesh) {
    EXPECT_THAT(message_of<c10::ValueError>(
                    [&] { VocabParallelEmbedding(VocabParallelEmbeddingOptions(2, 3), mesh.tensor()); }),
                HasSubstr("a dimension of 2 in blocks of 1 cannot be shared by 3 ranks: use 1 to 2."));
  });
}

}  // namespace
}  // namespace optp

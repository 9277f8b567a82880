// Check "smaller weights": products with bfloat16 and int8 weights against the closed form, at every degree.
#include "parallel/stored_weight.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel/column_parallel_linear.h"
#include "parallel/few_rows_product.h"
#include "parallel/product.h"
#include "parallel/row_parallel_linear.h"
#include "parallel/vocab_parallel_cross_entropy.h"
#include "parallel/vocab_parallel_embedding.h"
#include "parallel/vocab_parallel_linear_cross_entropy.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using ::testing::HasSubstr;

at::Tensor random_matrix(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kFloat);
}

// What a weight in `type` stands for, in float64: the definition, spelt out number by number.
at::Tensor meant(const at::Tensor& whole, at::ScalarType type) {
  at::Tensor numbers = at::empty(whole.sizes(), at::kDouble);
  const float* w = whole.const_data_ptr<float>();
  double* out = numbers.data_ptr<double>();
  const int64_t features = whole.size(1);
  for (int64_t n = 0; n < whole.size(0); ++n, w += features, out += features) {
    double largest = 0;
    for (int64_t k = 0; k < features; ++k) largest = std::max(largest, std::abs(static_cast<double>(w[k])));
    for (int64_t k = 0; k < features; ++k) {
      const double int8 = largest == 0 ? 0 : std::round(w[k] * 127 / largest) * largest / 127;
      out[k] = type == at::kBFloat16 ? static_cast<double>(static_cast<float>(c10::BFloat16(w[k]))) : int8;
    }
  }
  return numbers;
}

StoredWeight narrowed(const at::Tensor& whole, at::ScalarType type) {
  at::Tensor values = whole.clone(), scale;
  narrow_weight_(values, scale, type, nullptr, "test");
  return {values, scale};
}

TEST(StoredWeight, StandsForTheRoundedNumbers) {
  at::Tensor whole = random_matrix({5, 19}, 1);
  whole[3].zero_();
  for (const auto type : {at::kBFloat16, at::kChar}) {
    const StoredWeight stored = narrowed(whole, type);
    EXPECT_EQ(stored.values.scalar_type(), type);
    const at::Tensor expected = meant(whole, type);
    // Ties aside (none here), the same integers; scale x integer is rounded once in float32.
    EXPECT_TRUE(testing::close(stored.widened(0, 5, at::empty({5, 19})), expected, 1e-6)) << type;
    const at::Tensor ids = at::tensor({4, 0, 4}, at::kLong);
    EXPECT_TRUE(testing::close(stored.rows(ids), expected.index_select(0, ids), 1e-6)) << type;
    EXPECT_FALSE(stored.widened(0, 5, at::empty({5, 19})).equal(whole));
  }
}

TEST(StoredWeight, ProductsEqualTheClosedForm) {
  const at::InferenceMode inference;
  // Shapes with and without remainders of the tiles (4 rows; 3 and 8 channels; 8 features); a few rows and many.
  for (const auto& [channels, features] : {std::pair<int64_t, int64_t>{48, 64}, {29, 53}, {1, 3}, {8, 8}, {700, 401}}) {
    const at::Tensor whole = random_matrix({channels, features}, 2), bias = random_matrix({channels}, 3);
    for (const auto type : {at::kFloat, at::kBFloat16, at::kChar}) {
      const StoredWeight stored = type == at::kFloat ? StoredWeight(whole) : narrowed(whole, type);
      const at::Tensor numbers = type == at::kFloat ? whole.to(at::kDouble) : meant(whole, type);
      for (const int64_t rows : {1, 2, 3, 7, 8, 32, 33, 70}) {
        SCOPED_TRACE(c10::str(rows, " x ", features, " x ", channels, " in ", type));
        const at::Tensor input = random_matrix({rows, features}, 4 + rows);
        const at::Tensor sums = input.to(at::kDouble).mm(numbers.t());
        EXPECT_TRUE(testing::close(product(input, stored, bias), sums + bias, 2e-4));
        EXPECT_TRUE(testing::close(product(input.unsqueeze(1), stored), sums.unsqueeze(1), 2e-4));
        const at::Tensor out = at::full({rows, channels}, NAN);
        product_out(out, input, stored);
        EXPECT_TRUE(testing::close(out, sums, 2e-4));
      }
    }
  }
}

TEST(StoredWeight, ARowDoesNotDependOnTheRowsBesideIt) {
  const at::InferenceMode inference;
  const at::Tensor input = random_matrix({kFewRows, 77}, 5);
  for (const auto type : {at::kBFloat16, at::kChar}) {
    const StoredWeight stored = narrowed(random_matrix({50, 77}, 6), type);
    if (!few_rows_product_serves(input, stored)) continue;  // another CPU
    const at::Tensor together = product(input, stored);
    for (int64_t row = 0; row < kFewRows; ++row) {
      EXPECT_TRUE(testing::same(product(input.narrow(0, row, 1), stored), together.narrow(0, row, 1))) << row;
    }
  }
}

// Narrow layers compute what wide layers compute with the numbers that the narrow weights stand for.
TEST(StoredWeight, LayersAreTheSameAtEveryDegree) {
  const at::Tensor column = random_matrix({11, 14}, 7), row = random_matrix({14, 11}, 8),
                   table = random_matrix({23, 14}, 9);
  const at::Tensor input = random_matrix({4, 14}, 10);
  const at::Tensor ids = at::tensor({0, 22, 7, 7}, at::kLong);
  for (const auto type : {at::kBFloat16, at::kChar}) {
    const at::Tensor looked_up = meant(table, type).index_select(0, ids);
    const at::Tensor hidden = looked_up.mm(meant(column, type).t()).mm(meant(row, type).t());
    const at::Tensor logits = hidden.mm(meant(table, type).t());
    const at::Tensor loss = at::cross_entropy_loss(logits, ids, {}, at::Reduction::Sum);
    for (const int64_t tp : {1, 2, 3}) {
      SCOPED_TRACE(c10::str(type, " at tp ", tp));
      testing::run_ranks(tp, [&](const Mesh& mesh) {
        const ProcessGroup& group = mesh.tensor();
        ColumnParallelLinear first(ColumnParallelLinearOptions(14, 11).bias(false), group);
        RowParallelLinear second(RowParallelLinearOptions(11, 14).bias(false), group);
        VocabParallelEmbedding embedding(VocabParallelEmbeddingOptions(23, 14), group);
        copy_from_whole(named_shards(*first), [&](const std::string&) { return column; });
        copy_from_whole(named_shards(*second), [&](const std::string&) { return row; });
        copy_from_whole(named_shards(*embedding), [&](const std::string&) { return table; });
        for (NarrowableLayer* layer :
             {static_cast<NarrowableLayer*>(first.get()), static_cast<NarrowableLayer*>(second.get()),
              static_cast<NarrowableLayer*>(embedding.get())}) {
          layer->narrow_weight(type);
        }
        const at::InferenceMode inference;
        const at::Tensor rows = embedding(ids);
        EXPECT_TRUE(testing::close(rows, looked_up, 1e-6));
        const at::Tensor output = second(first(rows));
        EXPECT_TRUE(testing::close(output, hidden, 1e-4));
        EXPECT_TRUE(testing::close(vocab_parallel_linear_cross_entropy(output, embedding->stored_weight(), ids,
                                                                       embedding->layout(), group, -100, "loss", 3),
                                   loss, 1e-3));
      });
    }
  }
}

TEST(StoredWeight, IsNotForTraining) {
  ColumnParallelLinear layer(ColumnParallelLinearOptions(6, 4), ProcessGroup());
  layer->weight.data().fill_(1);
  layer->narrow_weight(at::kChar);
  EXPECT_FALSE(layer->weight.requires_grad());
  const at::Tensor input = at::ones({2, 6}).set_requires_grad(true);
  EXPECT_THAT(testing::message_of<c10::ValueError>([&] { layer(input); }), HasSubstr("have no gradient; train with"));
  EXPECT_THAT(testing::message_of<c10::ValueError>([&] { layer->narrow_weight(at::kChar); }),
              HasSubstr("keep float32 weights as bfloat16 or int8"));
  at::Tensor broken = at::full({2, 2}, NAN), scale;
  EXPECT_THAT(testing::message_of<c10::ValueError>([&] { narrow_weight_(broken, scale, at::kChar, nullptr, "fc1"); }),
              HasSubstr("fc1: the weights are not all finite"));
}

}  // namespace
}  // namespace optp

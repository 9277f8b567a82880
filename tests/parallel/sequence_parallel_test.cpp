// The sharded layers on slices of the tokens, against one process: integers, so every number must be the very same.
#include "parallel/sequence_parallel.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "parallel/column_parallel_linear.h"
#include "parallel/row_parallel_linear.h"
#include "parallel/vocab_parallel_embedding.h"
#include "tests/support/allocations.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::allocations_of;
using ::testing::HasSubstr;
using testing::integers;
using testing::message_of;
using testing::run_ranks;
using testing::same;

class SequenceParallel : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t tp = GetParam();
  // Tokens that divide evenly and not, and fewer than one for some ranks at no degree.
  const std::vector<int64_t> token_counts = {12, 13, 4};

  static at::Tensor own(const at::Tensor& whole, const TokenSlices& slices, const ProcessGroup& group) {
    const Range range = slices.layout.range(group.rank());
    return whole.narrow(0, range.start, range.size);
  }
};

INSTANTIATE_TEST_SUITE_P(Tp, SequenceParallel, ::testing::Values(1, 2, 3, 4), ::testing::PrintToStringParamName());

// embedding -> column -> relu -> row, everything between them in slices.
TEST_P(SequenceParallel, LayersEqualOneProcessInOutputAndEveryGradient) {
  for (const int64_t tokens : token_counts) {
    const at::Tensor ids = at::arange(tokens, at::kLong).mul(3).remainder(11);
    const auto leaf = [](at::IntArrayRef sizes, int64_t start) { return integers(sizes, start).requires_grad_(); };
    const at::Tensor table = leaf({11, 6}, 1), w1 = leaf({7, 6}, 2), b1 = leaf({7}, 3), w2 = leaf({5, 7}, 4),
                     b2 = leaf({5}, 5);
    const at::Tensor expected = at::linear(at::linear(at::embedding(table, ids), w1, b1).relu(), w2, b2);
    expected.backward(integers({tokens, 5}, 9));

    run_ranks(tp, [&](const Mesh& mesh) {
      const ProcessGroup& group = mesh.tensor();
      for (const bool regather : {true, false}) {
        const TokenSlices slices{{tokens, tp}, regather};
        VocabParallelEmbedding embed(VocabParallelEmbeddingOptions(11, 6).tensor_options(at::kDouble), group);
        ColumnParallelLinear fc1(ColumnParallelLinearOptions(6, 7).name("fc1").tensor_options(at::kDouble), group);
        RowParallelLinear fc2(RowParallelLinearOptions(7, 5).name("fc2").tensor_options(at::kDouble), group);
        const auto fill = [](const auto& layer, std::vector<at::Tensor> whole) {
          copy_from_whole(named_shards(*layer),
                          [&](const std::string& name) { return whole[name == "bias" ? 1 : 0].detach(); });
        };
        fill(embed, {table}), fill(fc1, {w1, b1}), fill(fc2, {w2, b2});
        ProcessGroup counted = group;
        counted.reset_counts();
        const at::Tensor output = fc2(fc1(embed(ids, slices), slices).relu(), slices);
        EXPECT_TRUE(same(output.detach(), own(expected.detach(), slices, group)));
        output.backward(own(integers({tokens, 5}, 9), slices, group));
        const auto check = [](const auto& layer, std::vector<at::Tensor> whole) {
          for (const NamedShard& entry : named_shards(*layer)) {
            const at::Tensor gradient = whole[entry.name == "bias" ? 1 : 0].grad();
            EXPECT_TRUE(same(entry.tensor.grad(), entry.shard.slice(gradient))) << entry.name;
          }
        };
        check(embed, {table}), check(fc1, {w1, b1}), check(fc2, {w2, b2});
        if (tp == 1) continue;
        const auto& counts = counted.counts();
        const int64_t all = tokens * 8, largest = slices.layout.largest() * 8;  // bytes of one feature
        const auto expect_bytes = [&](const char* site, int64_t bytes) {
          ASSERT_TRUE(counts.count(site)) << site;
          EXPECT_EQ(counts.at(site).calls, 1) << site;
          EXPECT_EQ(counts.at(site).bytes, bytes) << site;
        };
        expect_bytes("vocab_parallel_embedding forward", all * 6);
        expect_bytes("vocab_parallel_embedding backward", largest * 6);
        expect_bytes("fc1 forward", largest * 6);
        expect_bytes("fc1 backward", all * 6);
        expect_bytes("fc2 forward", all * 5);
        expect_bytes("fc2 backward", largest * 5);
        if (regather) expect_bytes("fc1 regather", largest * 6);
        EXPECT_EQ(counts.size(), regather ? 7U : 6U);
      }
    });
  }
}

TEST_P(SequenceParallel, SeveralProductsShareOneGatherAndOneReduceScatter) {
  const at::Tensor x = integers({13, 6}).requires_grad_();
  at::Tensor expected_gradient;
  run_ranks(tp, [&](const Mesh& mesh) {
    const ProcessGroup& group = mesh.tensor();
    const TokenSlices slices{{13, tp}};
    // Weights of all ranks, so that each can compute what the sum must be.
    const auto weight = [](int64_t rank, int64_t i) { return integers({4, 6}, 3 * rank + i); };
    std::vector<LinearOperands> operands;
    for (int64_t i = 0; i < 3; ++i) {
      operands.push_back({weight(group.rank(), i).requires_grad_(), i == 1 ? at::Tensor() : integers({4}, i)});
    }
    operands[2].weight.requires_grad_(false);
    const at::Tensor slice = own(x.detach(), slices, group).clone().requires_grad_();
    const auto outputs = gathered_products(slice, operands, slices, group, {"forward", "regather", "backward"});
    at::Tensor gradient = at::zeros({13, 6}, at::kDouble);
    for (int64_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(same(outputs[i].detach(), at::linear(x.detach(), operands[i].weight.detach(), operands[i].bias)));
      for (int64_t rank = 0; rank < tp; ++rank) gradient += integers({13, 4}, i + rank).mm(weight(rank, i));
    }
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (int64_t i = 0; i < 3; ++i) sum = sum + (outputs[i] * integers({13, 4}, i + group.rank())).sum();
    sum.backward();
    EXPECT_TRUE(same(slice.grad(), own(gradient, slices, group)));
    for (int64_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(same(operands[i].weight.grad(), integers({13, 4}, i + group.rank()).t().mm(x.detach())));
    }
    EXPECT_FALSE(operands[2].weight.grad().defined());
    if (tp > 1) {
      for (const char* site : {"forward", "regather", "backward"}) EXPECT_EQ(group.counts().at(site).calls, 1);
    }
  });
}

TEST_P(SequenceParallel, WhatNeedsNoGradientCostsNothing) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const ProcessGroup& group = mesh.tensor();
    const TokenSlices slices{{8, tp}};
    const auto sites_used = [&](bool input_wanted, bool weight_wanted) {
      ProcessGroup counted = group;
      counted.reset_counts();
      const at::Tensor slice = own(integers({8, 6}), slices, group).clone().requires_grad_(input_wanted);
      const at::Tensor weight = integers({4, 6}).requires_grad_(weight_wanted);
      const auto outputs = gathered_products(slice, {{weight, {}}}, slices, group, {"forward", "regather", "backward"});
      EXPECT_EQ(outputs[0].requires_grad(), input_wanted || weight_wanted);
      if (outputs[0].requires_grad()) outputs[0].sum().backward();
      EXPECT_EQ(slice.grad().defined(), input_wanted);
      EXPECT_EQ(weight.grad().defined(), weight_wanted);
      std::vector<std::string> sites;
      for (const auto& [site, count] : counted.counts()) sites.push_back(site);
      return sites;
    };
    using Sites = std::vector<std::string>;
    if (tp == 1) {
      EXPECT_EQ(sites_used(true, true), Sites{});
      return;
    }
    EXPECT_EQ(sites_used(false, false), Sites{"forward"});
    EXPECT_EQ(sites_used(true, false), (Sites{"backward", "forward"}));
    EXPECT_EQ(sites_used(false, true), (Sites{"forward", "regather"}));
  });
}

TEST_P(SequenceParallel, TheSliceAloneIsKeptForBackward) {
  run_ranks(tp, [&](const Mesh& mesh) {
    const int64_t tokens = 64 * tp, width = 32;
    const at::Tensor weight = at::ones({1, width}).requires_grad_();
    for (const bool regather : {true, false}) {
      const TokenSlices slices{{tokens, tp}, regather};
      const at::Tensor slice = at::ones({64, width});
      std::vector<at::Tensor> outputs;
      const auto memory = allocations_of([&] {
        outputs = gathered_products(slice, {{weight, {}}}, slices, mesh.tensor(), {"forward", "regather", "backward"});
      });
      const int64_t output_bytes = tokens * 4, gathered = tp == 1 || regather ? 0 : tokens * width * 4;
      EXPECT_NEAR(memory.left, output_bytes + gathered, 256);
    }
  });
}

TEST(SequenceParallelErrors, OptionsThatContradictAreRefused) {
  const TokenSlices slices{{4, 1}};
  ColumnParallelLinear column(ColumnParallelLinearOptions(6, 7).gather_output(true), ProcessGroup());
  EXPECT_THAT(message_of<c10::ValueError>([&] { column(at::zeros({4, 6}), slices); }),
              HasSubstr("leave gather_output off"));
  RowParallelLinear row(RowParallelLinearOptions(6, 7).input_is_parallel(false), ProcessGroup());
  EXPECT_THAT(message_of<c10::ValueError>([&] { row(at::zeros({4, 6}), slices); }),
              HasSubstr("leave input_is_parallel on"));
}

}  // namespace
}  // namespace optp

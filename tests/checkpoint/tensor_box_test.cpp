// Parts of tensors against the slicing of ATen, and which bytes of a file they touch.
#include "src/checkpoint/tensor_box.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <string>

#include "tests/checkpoint/checkpoint_files.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using Numbers = std::vector<int64_t>;

at::Tensor part_of(const at::Tensor& whole, const TensorBox& box) {
  at::Tensor part = whole;
  for (size_t d = 0; d < box.size.size(); ++d) part = part.narrow(static_cast<int64_t>(d), box.start[d], box.size[d]);
  return part.contiguous();
}

std::string row_major_bytes(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  return {static_cast<const char*>(contiguous.const_data_ptr()), contiguous.nbytes()};
}

std::vector<TensorBox> all_boxes(const Numbers& shape) {
  std::vector<TensorBox> boxes = {{shape, {}, {}}};
  for (const int64_t extent : shape) {
    std::vector<TensorBox> longer;
    for (const TensorBox& box : boxes) {
      for (int64_t start = 0; start < extent; ++start) {
        for (int64_t size = 1; size <= extent - start; ++size) {
          longer.push_back(box);
          longer.back().start.push_back(start);
          longer.back().size.push_back(size);
        }
      }
    }
    boxes = longer;
  }
  return boxes;
}

TEST(TensorBox, CopiesWhatTwoPartsHaveInCommon) {
  for (const Numbers& shape : {Numbers{5}, {3, 4}, {2, 3, 2}}) {
    const at::Tensor whole = testing::integers(shape, 0, at::kFloat);
    for (const TensorBox& stored : all_boxes(shape)) {
      const std::string bytes = "x" + row_major_bytes(part_of(whole, stored));  // at an odd address
      for (const TensorBox& wanted : all_boxes(shape)) {
        for (const auto dtype : {at::kFloat, at::kDouble}) {
          const at::Tensor out = at::full(wanted.size, 100, dtype);
          copy_box(std::string_view(bytes).substr(1), at::kFloat, stored, wanted, out);
          at::Tensor everything = at::full(shape, 100, dtype);
          at::Tensor target = everything;
          for (size_t d = 0; d < shape.size(); ++d) {
            target = target.narrow(static_cast<int64_t>(d), stored.start[d], stored.size[d]);
          }
          target.copy_(part_of(whole, stored));
          ASSERT_TRUE(testing::same(out, part_of(everything, wanted)))
              << stored.start << stored.size << wanted.start << wanted.size;
        }
      }
    }
  }
}

TEST(TensorBox, ConvertsLargeTensors) {
  for (const Numbers& shape : {Numbers{100000}, {3, 40000}, {2, 3, 20000}, {30000, 2}}) {
    const at::Tensor whole = at::randn(shape);
    TensorBox all{shape, Numbers(shape.size(), 0), shape};
    TensorBox part = all;
    part.start.back() = 1;
    part.size.back() -= 1;
    const at::Tensor out = at::empty(part.size, at::kBFloat16);
    copy_box(row_major_bytes(whole), at::kFloat, all, part, out);
    EXPECT_TRUE(at::equal(out, part_of(whole, part).to(at::kBFloat16))) << shape;
  }
}

TEST(TensorBox, ScalarsAndEmptyTensors) {
  const at::Tensor scalar = at::full({}, 2.5);
  const at::Tensor out = at::zeros({}, at::kDouble);
  copy_box(row_major_bytes(scalar), at::kFloat, {{}, {}, {}}, {{}, {}, {}}, out);
  EXPECT_EQ(out.item<double>(), 2.5);
  const TensorBox nothing{{0, 3}, {0, 0}, {0, 3}};
  copy_box({}, at::kFloat, nothing, nothing, at::empty({0, 3}));
  EXPECT_EQ(tiling({nothing}), Tiling::exact);
  EXPECT_EQ(tiling({{{}, {}, {}}}), Tiling::exact);
  EXPECT_EQ(tiling({{{}, {}, {}}, {{}, {}, {}}}), Tiling::overlap);
}

TEST(TensorBox, BoolsAreZeroOrOne) {
  const at::Tensor out = at::zeros({3}, at::kBool);
  copy_box(std::string("\x00\x01\xF0", 3), at::kBool, {{3}, {0}, {3}}, {{3}, {0}, {3}}, out);
  EXPECT_EQ(row_major_bytes(out), std::string("\x00\x01\x01", 3));
}

TEST(TensorBox, RefusesWhatDoesNotConvert) {
  const TensorBox all{{2}, {0}, {2}};
  EXPECT_NE(value_error([&] {
              copy_box(std::string(8, 0), at::kFloat, all, all, at::zeros({2}, at::kInt));
            }).find("does not convert"),
            std::string::npos);
  EXPECT_NE(value_error([&] { copy_box(std::string(8, 0), at::kFloat, all, all, at::zeros({3})); }).find("cannot take"),
            std::string::npos);
}

// A rank reads what it needs: everything around it may be out of reach.
TEST(TensorBox, TouchesNothingOutsideThePart) {
  const int64_t page = 4096;
  const TensorBox stored{{8, page}, {0, 0}, {8, page}};
  const TensorBox wanted{{8, page}, {3, 0}, {2, page}};
  for (const auto dtype : {at::kByte, at::kBFloat16}) {
    const size_t row = page * c10::elementSize(dtype);
    char* memory =
        static_cast<char*>(::mmap(nullptr, 8 * row, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(memory, MAP_FAILED);
    std::fill(memory, memory + 8 * row, '\1');
    ASSERT_EQ(::mprotect(memory, 3 * row, PROT_NONE), 0);
    ASSERT_EQ(::mprotect(memory + 5 * row, 3 * row, PROT_NONE), 0);
    const at::Tensor out = at::zeros({2, page}, dtype);
    copy_box({memory, 8 * row}, dtype, stored, wanted, out);
    EXPECT_TRUE(out.ne(0).all().item<bool>());
    const at::Tensor converted = at::zeros({2, page}, at::kFloat);
    if (at::isFloatingType(dtype)) copy_box({memory, 8 * row}, dtype, stored, wanted, converted);
    ::munmap(memory, 8 * row);
  }
}

TEST(TensorBox, SeesOverlapsAndGaps) {
  const auto box = [](Numbers start, Numbers size) { return TensorBox{{4, 6}, std::move(start), std::move(size)}; };
  EXPECT_EQ(tiling({box({0, 0}, {4, 6})}), Tiling::exact);
  EXPECT_EQ(tiling({box({0, 0}, {2, 6}), box({2, 0}, {2, 6})}), Tiling::exact);
  EXPECT_EQ(tiling({box({0, 0}, {2, 3}), box({2, 0}, {2, 6}), box({0, 3}, {2, 3})}), Tiling::exact);
  EXPECT_EQ(tiling({box({0, 0}, {2, 6}), box({1, 0}, {3, 6})}), Tiling::overlap);
  EXPECT_EQ(tiling({box({0, 0}, {2, 6}), box({0, 0}, {2, 6})}), Tiling::overlap);
  EXPECT_EQ(tiling({box({0, 0}, {2, 6}), box({3, 0}, {1, 6})}), Tiling::gap);
  EXPECT_EQ(tiling({}), Tiling::gap);
}

TEST(TensorBox, IsSoundWithinItsShapeOnly) {
  EXPECT_TRUE(is_sound({{4, 6}, {1, 2}, {3, 4}}));
  EXPECT_TRUE(is_sound({{4}, {4}, {0}}));
  EXPECT_FALSE(is_sound({{4, 6}, {1}, {3, 4}}));
  EXPECT_FALSE(is_sound({{4}, {-1}, {2}}));
  EXPECT_FALSE(is_sound({{4}, {0}, {-2}}));
  EXPECT_FALSE(is_sound({{-4}, {0}, {0}}));
  EXPECT_FALSE(is_sound({{4}, {2}, {3}}));
  EXPECT_FALSE(is_sound({{4}, {INT64_MAX}, {INT64_MAX}}));
  EXPECT_FALSE(is_sound({{INT64_MAX, 4}, {0, 0}, {1, 1}}));
}

TEST(TensorBox, DescribesAShard) {
  const ParameterShard cut{.shape = {4, 7}, .dim = 1, .layout = ShardLayout(7, 3), .part = 1};
  EXPECT_EQ(box_of(cut), (TensorBox{{4, 7}, {0, 3}, {4, 2}}));
  const ParameterShard whole{.shape = {4, 7}, .dim = {}, .layout = {}, .part = 0};
  EXPECT_EQ(box_of(whole), (TensorBox{{4, 7}, {0, 0}, {4, 7}}));
}

}  // namespace
}  // namespace optp

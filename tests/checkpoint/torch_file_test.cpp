// pytorch_model.bin: every layout that torch.save writes, and the same ranges as from safetensors. Files of torch
// itself are in tests/golden and in tests/launched/convert_test.py.
#include "src/checkpoint/torch_file.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/checkpoint/checkpoint_files.h"
#include "tests/checkpoint/torch_bytes.h"

namespace optp {
namespace {

using pickled::integer;
using pickled::state_dict;
using pickled::storage;
using pickled::tensor;
using pickled::text;
using ::testing::ElementsAre;

std::string bytes_of(const at::Tensor& values) {
  return {static_cast<const char*>(values.const_data_ptr()), values.nbytes()};
}

// A file with one storage, whose content is `values`, and whose pickle is `pickle`.
class TorchFileTest : public ::testing::Test {
 protected:
  TorchFile open(const std::string& pickle, const at::Tensor& values, const ZipStyle& style = {}) const {
    write_bytes(folder_ / "model.bin", zip_bytes({{"archive/data.pkl", pickle},
                                                  {"archive/byteorder", "little"},
                                                  {"archive/data/0", bytes_of(values)},
                                                  {"archive/version", "3\n"}},
                                                 style));
    return TorchFile(folder_ / "model.bin");
  }

  TemporaryFolder folder_;
};

TEST_F(TorchFileTest, ReadsTensorsAndTheirRanges) {
  const at::Tensor values = at::randn({3, 4});
  const std::string pickle = state_dict({text("a"), tensor(storage(12), 0, {3, 4}, {4, 1})});
  for (const ZipStyle& style : {ZipStyle{}, ZipStyle{.zip64 = true}, ZipStyle{.comment = "PK\x05\x06 a comment"}}) {
    const TorchFile file = open(pickle, values, style);
    EXPECT_THAT(file.names(), ElementsAre("a"));
    EXPECT_EQ(file.dtype("a"), at::kFloat);
    EXPECT_EQ(file.shape("a"), (std::vector<int64_t>{3, 4}));
    EXPECT_TRUE(at::equal(file.read("a"), values));
    const at::Tensor columns = at::empty({3, 2}, at::kDouble);
    file.read_range("a", 1, 1, 2, columns);
    EXPECT_TRUE(at::equal(columns, values.narrow(1, 1, 2).to(at::kDouble)));
  }
}

TEST_F(TorchFileTest, SharedStoragesAndStrides) {
  const at::Tensor values = at::randn({4, 3});
  const TorchFile file = open(state_dict({text("whole"), tensor(storage(12), 0, {4, 3}, {3, 1}),         //
                                          text("turned"), tensor(storage(12), 0, {3, 4}, {1, 3}),        //
                                          text("rows"), tensor(storage(12), 3, {2, 3}, {3, 1}),          //
                                          text("column"), tensor(storage(12), 2, {4}, {3}),              //
                                          text("repeated"), tensor(storage(12), 1, {5, 2}, {0, 1}),      //
                                          text("one"), tensor(storage(12), 11, {1, 1, 1}, {7, 9, 100}),  //
                                          text("number"), tensor(storage(12), 5, {}, {}),                //
                                          text("nothing"), tensor(storage(12), 12, {0, 3}, {3, 1})}),
                              values);
  EXPECT_TRUE(at::equal(file.read("whole"), values));
  EXPECT_TRUE(at::equal(file.read("turned"), values.t()));
  EXPECT_TRUE(at::equal(file.read("rows"), values.narrow(0, 1, 2)));
  EXPECT_TRUE(at::equal(file.read("column"), values.select(1, 2)));
  EXPECT_TRUE(at::equal(file.read("repeated"), values[0].narrow(0, 1, 2).expand({5, 2})));
  EXPECT_TRUE(at::equal(file.read("one"), values[3][2].view({1, 1, 1})));
  EXPECT_TRUE(at::equal(file.read("number"), values[1][2]));
  EXPECT_EQ(file.read("nothing").sizes(), at::IntArrayRef({0, 3}));
  const at::Tensor range = at::empty({3, 2}, at::kHalf);
  file.read_range("turned", 1, 2, 2, range);
  EXPECT_TRUE(at::equal(range, values.t().narrow(1, 2, 2).to(at::kHalf)));
}

TEST_F(TorchFileTest, EveryTypeOfStorage) {
  const std::vector<std::pair<std::string, at::ScalarType>> types = {
      {"FloatStorage", at::kFloat}, {"DoubleStorage", at::kDouble}, {"HalfStorage", at::kHalf},
      {"LongStorage", at::kLong},   {"IntStorage", at::kInt},       {"BFloat16Storage", at::kBFloat16},
      {"ShortStorage", at::kShort}, {"CharStorage", at::kChar},     {"ByteStorage", at::kByte},
      {"BoolStorage", at::kBool}};
  for (const auto& [name, type] : types) {
    const at::Tensor values = at::arange(6).sub(2).to(type);
    const TorchFile file = open(state_dict({text("a"), tensor(storage(6, name), 0, {6}, {1})}), values);
    EXPECT_TRUE(at::equal(file.read("a"), values)) << name;
    EXPECT_EQ(file.dtype("a"), type);
  }
}

// What other versions of torch and of the pickle protocol write for the same thing.
TEST_F(TorchFileTest, OtherWaysToPickleADict) {
  const at::Tensor values = at::randn({2});
  const std::string a = text("a");
  const std::string value = tensor(storage(2), 0, {2}, {1});
  const std::string parameter =
      pickled::call(pickled::function("torch._utils", "_rebuild_parameter"), {value, "\x88", pickled::ordered_dict()});
  const std::string stacked =
      "\x8c\x0b"
      "collections"
      "\x8c\x0b"
      "OrderedDict"
      "\x93)R";
  const std::string attributes = "}" + text("_metadata") + pickled::ordered_dict() + "sb";
  for (const std::string& pickle : {
           "\x80\x02" + pickled::ordered_dict() + "q\x01(" + a + value + "u" + attributes + ".",
           "\x80\x02" + pickled::ordered_dict() + a + parameter + "s.",
           "\x80\x04\x95" + little_endian(99, 8) + stacked + "\x94(" + a + value + "u.",
           "\x80\x02(" + a + value + "d.",
           "\x80\x02" + value + "r" + little_endian(7, 4) + "}" + a + "j" + little_endian(7, 4) + "s.",
           // A tuple, a list with all kinds of items in it, and numbers lie on the stack below the dict.
           "\x80\x02(](NK\x01M\x02\x03J\xff\xff\xff\xff\x88\x89G12345678e)t}" + a + value + "s.",
       }) {
    const TorchFile file = open(pickle, values);
    EXPECT_THAT(file.names(), ElementsAre("a"));
    EXPECT_TRUE(at::equal(file.read("a"), values));
  }
}

}  // namespace
}  // namespace optp

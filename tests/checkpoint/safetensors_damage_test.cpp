// Files that lie: every case is a safetensors file damaged by hand, and a piece of the one sentence it must give.
#include <gtest/gtest.h>

#include <cstdint>

#include "src/checkpoint/safetensors.h"
#include "tests/checkpoint/file_damage.h"

namespace optp {
namespace {

using namespace std::string_literals;

// One tensor "a" described by `fields`, and as many bytes of data.
std::string one_tensor(const std::string& fields, size_t data) {
  return safetensors_bytes("{\"a\":{" + fields + "}}", std::string(data, 'x'));
}

std::string repeated(const std::string& text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

std::vector<FileDamage> damages() {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const auto with_shape = [](const std::string& shape) {
    return one_tensor(R"("dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,8])", 8);
  };
  const auto with_offsets = [](const std::string& offsets) {
    return one_tensor(R"("dtype":"F32","shape":[2],"data_offsets":)" + offsets, 8);
  };
  const auto two = [](const std::string& first, const std::string& second, size_t data) {
    return safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + first +
                                 R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}",
                             std::string(data, 'x'));
  };
  return {
      {"TooShort", "abc", "it has 3 bytes, too few"},
      {"LengthBeyondFile", "\x10\0\0\0\0\0\0\0{}"s, "16 bytes long, but only 2 follow"},
      {"LengthAboveTheLimit", "\x01\xe1\xf5\x05\0\0\0\0{}"s, "100000001 bytes long, above the limit of 100000000"},
      {"LengthHuge", std::string(8, '\xff') + "{}", "18446744073709551615 bytes long, above the limit"},
      {"GitLfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"},
      {"HeaderEmpty", safetensors_bytes("", ""), "does not begin with '{'"},
      {"HeaderIsAnArray", safetensors_bytes("[]", ""), "does not begin with '{'"},
      {"HeaderAfterASpace", safetensors_bytes(" {}", ""), "does not begin with '{'"},
      {"HeaderCutOff", safetensors_bytes("{\"a\":{", ""), "not valid JSON at byte 7"},
      {"HeaderGoesOn", safetensors_bytes("{} {}", ""), "not valid JSON at byte 4"},
      {"HeaderWithComment", safetensors_bytes("{/**/}", ""), "not valid JSON at byte 2"},
      {"ZeroByteHidesTheRest", safetensors_bytes("{}\0garbage"s, ""), "not valid JSON at byte 2"},
      {"InvalidUtf8", safetensors_bytes("{\"\xc3(\":{" + good + "}}", "12345678"), "not valid UTF-8 at byte 4"},
      {"SurrogateAlone", safetensors_bytes("{\"\\ud800\":{" + good + "}}", "12345678"), "not valid JSON at byte"},
      {"TensorTwice", safetensors_bytes("{\"a\":{" + good + "},\"a\":{" + good + "}}", "12345678"),
       "has the tensor \"a\" twice"},
      {"FieldTwice", one_tensor(good + R"(,"shape":[2])", 8), "tensor \"a\" has the field \"shape\" twice"},
      {"UnknownField", one_tensor(good + R"(,"stride":[2])", 8), "tensor \"a\" has the unknown field \"stride\""},
      {"MetadataTwice", safetensors_bytes(R"({"__metadata__":{},"__metadata__":{}})", ""), "\"__metadata__\" twice"},
      {"MetadataKeyTwice", safetensors_bytes(R"({"__metadata__":{"k":"1","k":"2"}})", ""), "the key \"k\" twice"},
      {"MetadataNotStrings", safetensors_bytes(R"({"__metadata__":{"k":1}})", ""),
       "the metadata \"k\" is 1, not a string"},
      {"MetadataNotAnObject", safetensors_bytes(R"({"__metadata__":null})", ""), "\"__metadata__\" is null"},
      {"TensorNotAnObject", safetensors_bytes(R"({"a":[1]})", ""), "tensor \"a\" is an array, not an object"},
      {"NoDtype", one_tensor(R"("shape":[2],"data_offsets":[0,8])", 8), "tensor \"a\" has no \"dtype\""},
      {"NoShape", one_tensor(R"("dtype":"F32","data_offsets":[0,8])", 8), "tensor \"a\" has no \"shape\""},
      {"NoOffsets", one_tensor(R"("dtype":"F32","shape":[2])", 8), "tensor \"a\" has no \"data_offsets\""},
      {"UnknownDtype", one_tensor(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])", 8),
       "tensor \"a\" has the dtype \"F8_E4M3\""},
      {"DtypeNotAString", one_tensor(R"("dtype":32,"shape":[2],"data_offsets":[0,8])", 8),
       "the dtype of tensor \"a\" is 32, not a string"},
      {"DtypeAnArray", one_tensor(R"("dtype":["F32"],"shape":[2],"data_offsets":[0,8])", 8),
       "the dtype of tensor \"a\" is an array"},
      {"ShapeNotAnArray", with_shape("2"), "the shape of tensor \"a\" is 2, not an array"},
      {"DimensionNegative", with_shape("[-2]"), "the shape of tensor \"a\" holds -2"},
      {"DimensionFractional", with_shape("[2.0]"), "the shape of tensor \"a\" holds the number \"2.0\""},
      {"DimensionAString", with_shape("[\"2\"]"), "the shape of tensor \"a\" holds the string \"2\""},
      {"DimensionTrue", with_shape("[true,2]"), "the shape of tensor \"a\" holds true"},
      {"DimensionTooLarge", with_shape("[9223372036854775808]"), "holds 9223372036854775808"},
      {"DimensionBeyond64Bits", with_shape("[36893488147419103234]"), "holds the number \"36893488147419103234\""},
      {"DimensionsNested", with_shape("[[2]]"), "the shape of tensor \"a\" holds an array"},
      {"DimensionsTooMany", with_shape("[2" + repeated(",1", 64) + "]"), "more than 64 dimensions"},
      {"ProductOverflowsToFit", with_shape("[4611686018427387906]"), "the impossible shape [4611686018427387906]"},
      {"ProductOverflows", with_shape("[4294967296,4294967296]"), "the impossible shape [4294967296, 4294967296]"},
      {"ProductOverflowsBesideZero", with_shape("[0,4611686018427387904,8]"), "the impossible shape [0, "},
      {"ShapeTooSmall", with_shape("[1]"), "shape [1] and dtype F32 needs 4 bytes, but its data_offsets 0, 8 hold 8"},
      {"ShapeTooLarge", with_shape("[3]"), "needs 12 bytes, but its data_offsets 0, 8 hold 8"},
      {"ShapeEmpty", with_shape("[0]"), "needs 0 bytes, but its data_offsets 0, 8 hold 8"},
      {"OffsetsOne", with_offsets("[0]"), "tensor \"a\" has 1 data_offsets, not two"},
      {"OffsetsNone", with_offsets("[]"), "tensor \"a\" has 0 data_offsets, not two"},
      {"OffsetsThree", with_offsets("[0,8,8]"), "tensor \"a\" has more than two data_offsets"},
      {"OffsetsNotIntegers", with_offsets("[0,8.0]"), "the data_offsets of tensor \"a\" holds the number \"8.0\""},
      {"OffsetsNegative", with_offsets("[-8,0]"), "the data_offsets of tensor \"a\" holds -8"},
      {"OffsetsDescending", with_offsets("[8,0]"), "tensor \"a\" has the descending data_offsets 8, 0"},
      {"OffsetsBeyondFile", with_offsets("[8,16]"),
       "tensor \"a\" ends at byte 16 of the data, of which the file has 8"},
      {"OffsetsHuge", with_offsets("[18446744073709551608,18446744073709551615]"),
       "ends at byte 18446744073709551615 of the data"},
      {"Truncated", one_tensor(good, 7), "tensor \"a\" ends at byte 8 of the data, of which the file has 7"},
      {"Overlap", two("[0,8]", "[4,12]", 12), "tensor \"b\" starts at byte 4 of the data, inside another tensor"},
      {"SameBytesTwice", two("[0,8]", "[0,8]", 8), "tensor \"b\" starts at byte 0 of the data, inside another tensor"},
      {"Hole", two("[0,8]", "[12,20]", 20), "bytes 8 to 12 of the data, before tensor \"b\", belong to no tensor"},
      {"HoleAtTheStart", one_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[4,12])", 12), "bytes 0 to 4"},
      {"TrailingBytes", one_tensor(good, 11), "the last 3 of its 11 bytes of data belong to no tensor"},
      {"NoTensorsButData", safetensors_bytes("{}", "x"), "the last 1 of its 1 bytes of data"},
      {"NestedArrays", safetensors_bytes("{\"a\":" + std::string(1'000'000, '['), ""), "tensor \"a\" is an array"},
      {"NestedObjects", safetensors_bytes(repeated("{\"a\":", 1'000'000), ""), "has the unknown field \"a\""},
      {"NestedMetadata", safetensors_bytes("{\"__metadata__\":{\"k\":" + std::string(1'000'000, '['), ""),
       "the metadata \"k\" is an array"},
      {"NameOfSeveralLines", safetensors_bytes(R"({"x\n\u0000y":1})", ""), "tensor \"x??y\" is 1"},
      {"NameTooLongToShow", safetensors_bytes("{\"" + repeated("\u00e9", 5000) + "\":1}", ""),
       "tensor \"" + repeated("\u00e9", 100) + "...\" is 1"},
  };
}

TEST(SafetensorsDamage, IsOneClearError) { expect_one_clear_error<SafetensorsFile>(damages(), "bad.safetensors"); }

}  // namespace
}  // namespace optp

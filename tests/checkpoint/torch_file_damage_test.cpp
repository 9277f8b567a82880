// Files of torch.save that lie or want to run code: each is one clear error, and nothing is run.
#include <gtest/gtest.h>

#include "src/checkpoint/torch_file.h"
#include "tests/checkpoint/file_damage.h"
#include "tests/checkpoint/torch_bytes.h"

namespace optp {
namespace {

using pickled::call;
using pickled::function;
using pickled::integer;
using pickled::integers;
using pickled::state_dict;
using pickled::storage;
using pickled::tensor;
using pickled::text;
using pickled::tuple;

// A sound archive around a pickle; its storage has 12 floats.
std::string archive(const std::string& pickle, const ZipStyle& style = {}) {
  return zip_bytes({{"m/data.pkl", pickle}, {"m/byteorder", "little"}, {"m/data/0", std::string(48, 'x')}}, style);
}

std::vector<FileDamage> pickles_that_run_code() {
  const auto reduce = [](const std::string& module, const std::string& name) {
    return archive(state_dict({text("a"), call(function(module, name), {text("touch /tmp/optp-was-here")})}));
  };
  const std::string shell = text("touch /tmp/optp-was-here");
  return {
      {"OsSystem", reduce("os", "system"), "asks for \"os.system\", which is neither a tensor nor a plain container"},
      {"PosixSystem", reduce("posix", "system"), "\"posix.system\""},
      {"BuiltinsEval", reduce("builtins", "eval"), "\"builtins.eval\""},
      {"Exec", reduce("__builtin__", "exec"), "\"__builtin__.exec\""},
      {"Getattr", reduce("builtins", "getattr"), "\"builtins.getattr\""},
      {"TorchHubLoad", reduce("torch.hub", "load"), "\"torch.hub.load\""},
      {"TorchLoad", reduce("torch", "load"), "\"torch.load\""},
      {"AnotherModulesOrderedDict", reduce("evil", "OrderedDict"), "\"evil.OrderedDict\""},
      {"StackGlobal", archive("\x80\x04" + text("os") + text("system") + "\x93" + tuple({shell}) + "R."),
       "\"os.system\""},
      {"Inst", archive("\x80\x02(" + shell + "ios\nsystem\n."), "\"os.system\""},
      {"InstOfAKnownName", archive("\x80\x02(icollections\nOrderedDict\n."), "the instruction 0x69 at byte 3"},
      {"Obj", archive("\x80\x02(" + function("collections", "OrderedDict") + "o."), "the instruction 0x6f"},
      {"NewObj", archive("\x80\x02" + function("collections", "OrderedDict") + ")\x81."), "the instruction 0x81"},
      {"Extension", archive("\x80\x02\x82\x01."), "the instruction 0x82 at byte 2"},
      {"PersistentText", archive("\x80\x02Pid\n."), "the instruction 0x50"},
      {"NamedButNotCalled", archive("\x80\x02" + function("os", "system") + "0}."), "\"os.system\""},
      {"NameOfSeveralLines", archive("\x80\x04" + text("o\ns") + text("sys\x1b[31mtem") + "\x93."),
       "\"o?s.sys?[31mtem\""},
      {"TorchScript",
       archive("\x80\x02"
               "c__torch__\nModel\n)\x81."),
       "\"__torch__.Model\""},
  };
}

std::vector<FileDamage> damaged_pickles() {
  const std::string good = tensor(storage(12), 0, {3, 4}, {4, 1});
  const auto with = [](const std::string& value) { return archive(state_dict({text("a"), value})); };
  const int64_t huge = int64_t{1} << 62;
  const std::string rebuild = function("torch._utils", "_rebuild_tensor_v2");
  return {
      {"Empty", archive(""), "its pickle is cut off at byte 0"},
      {"NoStop", archive("\x80\x02}"), "its pickle is cut off at byte 3"},
      {"CutOffInAString", archive("\x80\x02X\x10"), "its pickle is cut off at byte 4"},
      {"StringBeyondThePickle", archive("\x80\x02X\xff\xff\xff\xff."), "its pickle is cut off"},
      {"StringHuge", archive("\x80\x04\x8d" + std::string(8, '\xff') + "."), "its pickle is cut off"},
      {"GlobalWithoutALine",
       archive("\x80\x02"
               "cos"),
       "its pickle is cut off"},
      {"ProtocolUnknown", archive("\x80\x06}."), "the protocol 6, above the newest known, 5"},
      {"InstructionUnknown", archive("\x80\x02\xfe."), "the instruction 0xfe at byte 2"},
      {"StopWithoutAValue", archive("\x80\x02."), "takes more than there is at byte 2"},
      {"TupleOfMissingItems", archive("\x80\x02N\x86."), "takes more than there is at byte 3"},
      {"ItemsBelowAMark", archive("\x80\x02N(\x85."), "takes more than there is at byte 4"},
      {"NoMark", archive("\x80\x02Nt."), "a mark that was never set at byte 3"},
      {"RecallsNothing", archive("\x80\x02h\x05."), "recalls what it never stored at byte 2"},
      {"AppendToADict", archive("\x80\x02}Na."), "has a dict in place of a list at byte 4"},
      {"ItemOfAList", archive("\x80\x02]NNs."), "has a list in place of a dict at byte 5"},
      {"KeyWithoutAValue", archive("\x80\x02}(Nu."), "a key without a value at byte 5"},
      {"IntegerTooLong",
       archive("\x80\x02\x8a\x09"
               "123456789."),
       "an integer of more than 64 bits at byte 2"},
      {"CallOfANumber", archive("\x80\x02K\x01)R."), "has an integer in place of a function"},
      {"CallWithoutATuple", archive("\x80\x02" + function("collections", "OrderedDict") + "NR."),
       "has None in place of the arguments of a function"},
      {"OrderedDictOfItems", archive("\x80\x02" + call(function("collections", "OrderedDict"), {"]"}) + "."),
       "calls \"collections.OrderedDict\" with 1 arguments"},
      {"StorageCalled", archive("\x80\x02" + function("torch", "FloatStorage") + ")R."),
       "calls \"torch.FloatStorage\" with 0 arguments"},
      {"TooManyArguments", archive("\x80\x02" + call(rebuild, std::vector<std::string>(9, "N")) + "."), "9 arguments"},
      {"AttributesOfAList", archive("\x80\x02]}b."), "gives attributes to a list"},
      {"AttributesOfATensor", archive("\x80\x02" + good + "}b."), "gives attributes to a tensor"},
      {"NoDict", archive("\x80\x02" + good + "."), "it holds a tensor, not a dict of tensors by name"},
      {"KeyANumber", archive(state_dict({integer(1), good})), "its dict has an integer for a key"},
      {"ValueANumber", with(integer(1)), "its entry \"a\" is an integer, not a tensor"},
      {"ValueADict", with("}"), "its entry \"a\" is a dict, not a tensor; save the model's state_dict() alone"},
      {"TensorTwice", archive(state_dict({text("a"), good, text("a"), good})), "it has the tensor \"a\" twice"},
      {"StorageMissing", with(tensor(storage(12, "FloatStorage", "1"), 0, {1}, {1})), "has no entry \"data/1\""},
      {"StorageOutside", with(tensor(storage(12, "FloatStorage", "../../etc/passwd"), 0, {1}, {1})),
       "has no entry \"data/../../etc/passwd\""},
      {"StorageTooSmall", with(tensor(storage(13), 0, {13}, {1})),
       "needs a storage of 13 elements of 4 bytes, but entry \"data/0\" has 48 bytes"},
      {"StorageOfAnotherType", with(tensor(storage(12, "DoubleStorage"), 0, {1}, {1})), "12 elements of 8 bytes"},
      {"StorageOfUnknownType", with(tensor(storage(12, "ComplexFloatStorage"), 0, {1}, {1})),
       "\"torch.ComplexFloatStorage\""},
      {"StorageNegative", with(tensor(storage(-1), 0, {1}, {1})), "a storage of -1 elements"},
      {"OutsideNotAStorage", archive("\x80\x02" + tuple({text("module")}) + "Q."), "that is no storage"},
      {"OutsideATypeOfAnotherKind",
       archive("\x80\x02" + tuple({text("storage"), rebuild, text("0"), text("cpu"), integer(1)}) + "Q."),
       "a storage of type \"torch._utils._rebuild_tensor_v2\""},
      {"BeyondTheStorage", with(tensor(storage(12), 0, {3, 5}, {5, 1})),
       "shape [3, 5], strides [5, 1] and offset 0 in a storage of 12 elements"},
      {"OffsetBeyondTheStorage", with(tensor(storage(12), 1, {3, 4}, {4, 1})), "and offset 1 in a storage of 12"},
      {"EmptyBeyondTheStorage", with(tensor(storage(12), 13, {0}, {1})), "and offset 13 in a storage of 12"},
      {"OffsetNegative", with(tensor(storage(12), -1, {1}, {1})), "offset -1 in a storage"},
      {"SizeNegative", with(tensor(storage(12), 0, {-1}, {1})), "has -1 in the shape of a tensor"},
      {"StrideNegative", with(tensor(storage(12), 11, {2}, {-1})), "has -1 in the strides of a tensor"},
      {"StridesTooFew", with(tensor(storage(12), 0, {3, 4}, {1})), "shape [3, 4] and strides [1]"},
      {"ReachOverflows", with(tensor(storage(12), 0, {5}, {huge})), "shape [5], strides [4611686018427387904]"},
      {"ProductOverflows", with(tensor(storage(12), 0, {huge, huge}, {0, 0})), "strides [0, 0] and offset 0"},
      {"ProductOverflowsBesideZero", with(tensor(storage(12), 0, {0, huge, huge}, {0, 0, 0})), "strides [0, 0, 0]"},
      {"DimensionsTooMany", with(tensor(storage(12), 0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1))),
       "has 65 numbers in the shape of a tensor"},
      {"ShapeNotIntegers", with(call(rebuild, {storage(12), integer(0), tuple({"N"}), integers({1})})),
       "has None in place of the shape of a tensor"},
      {"ShapeANumber", with(call(rebuild, {storage(12), integer(0), integer(1), integers({1})})),
       "has an integer in place of the shape of a tensor"},
      {"TensorWithoutAStorage", with(call(rebuild, {"N", integer(0), integers({1}), integers({1})})),
       "has None in place of the storage of a tensor"},
      {"ParameterWithoutATensor", with(call(function("torch._utils", "_rebuild_parameter"), {"N"})),
       "has None in place of a parameter's tensor"},
      {"PickleTooLong", archive(std::string((size_t{8} << 20) + 1, '(')), "8388609 bytes, above the limit of 8388608"},
  };
}

std::vector<FileDamage> damaged_archives() {
  const std::string pickle = state_dict({text("a"), tensor(storage(12), 0, {12}, {1})});
  const std::string good = archive(pickle);
  const std::string data(48, 'x');
  // `good` with `from` replaced, once, behind byte `start`.
  const auto changed = [&](const std::string& from, const std::string& to, size_t start = 0) {
    std::string bytes = good;
    return bytes.replace(bytes.find(from, start), from.size(), to);
  };
  const size_t directory = good.find("PK\x01\x02");
  return {
      {"NotAZip", "half a fi", "it does not begin like a zip archive"},
      {"OldFormat", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.more", "wrote before PyTorch 1.6"},
      {"GitLfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"},
      {"Truncated", good.substr(0, good.size() - 1), "its end is missing (is the file truncated?)"},
      {"HalfTheFile", good.substr(0, good.size() / 2), "its end is missing (is the file truncated?)"},
      {"BeginningLost", "PK\x03\x04" + good.substr(200), "outside the archive (is the file truncated?)"},
      {"Zip64Truncated", "PK\x03\x04" + archive(pickle, {.zip64 = true}).substr(200), "its zip64 end record is not at"},
      {"Zip64WithoutSizes", archive(pickle, {.zip64 = true, .zip64_extra = false}), "lacks its zip64 sizes"},
      {"Compressed", archive(pickle, {.method = 8}), "its entry \"m/byteorder\" is compressed"},
      {"Encrypted", archive(pickle, {.flags = 1}), "its entry \"m/byteorder\" is encrypted"},
      {"EntryBeyondTheContent", archive(pickle, {.size_change = 1000}), "goes beyond the archive's content"},
      {"EntryHuge", archive(pickle, {.size_change = -100'000, .zip64 = true}), "goes beyond the archive's content"},
      {"LocalHeaderDamaged", changed("PK\x03\x04", "XX\x03\x04", 8), "is not at byte"},
      {"DirectoryDamaged", changed("PK\x01\x02", "XX\x01\x02", directory + 4), "has 1 of 3 entries"},
      {"NameBeyondTheDirectory", changed(little_endian(8, 2), "\xff\xff", good.rfind("PK\x01\x02") + 28),
       "its zip directory ends inside entry 2 of 3"},
      {"NameTwice", zip_bytes({{"m/data.pkl", pickle}, {"m/data.pkl", pickle}}), "the entry \"m/data.pkl\" twice"},
      {"NoPickle", zip_bytes({{"m/data/0", data}}), "without a data.pkl"},
      {"PickleInASubfolder", zip_bytes({{"m/n/data.pkl", pickle}}), "without a data.pkl"},
      {"TwoPickles", zip_bytes({{"m/data.pkl", pickle}, {"n/data.pkl", pickle}}),
       "two pickles, \"m/data.pkl\" and \"n/data.pkl\""},
      {"BigEndian", zip_bytes({{"m/data.pkl", pickle}, {"m/byteorder", "big"}, {"m/data/0", data}}),
       "the byte order \"big\", not \"little\""},
      {"TorchScriptArchive", zip_bytes({{"m/data.pkl", pickle}, {"m/constants.pkl", pickle}, {"m/data/0", data}}),
       "it is a TorchScript file, not one of weights alone"},
      {"Unaligned", archive(state_dict({text("a"), tensor(storage(12), 0, {3, 4}, {1, 3})}), {.misalignment = 1}),
       "has the strides [1, 3]; save it again after .contiguous()"},
  };
}

void expect_refused_unrun(const std::vector<FileDamage>& damages) {
  expect_one_clear_error<TorchFile>(damages, "bad.bin");
  EXPECT_FALSE(std::filesystem::exists("/tmp/optp-was-here"));
}

TEST(TorchFileDamage, CodeIsRefusedByName) { expect_refused_unrun(pickles_that_run_code()); }
TEST(TorchFileDamage, DamagedPicklesAreOneClearError) { expect_refused_unrun(damaged_pickles()); }
TEST(TorchFileDamage, DamagedArchivesAreOneClearError) { expect_refused_unrun(damaged_archives()); }

}  // namespace
}  // namespace optp

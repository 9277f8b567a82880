// Safetensors files: written and read back, read in ranges, and compared with bytes that Python's safetensors wrote.
#include "src/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "src/checkpoint/safetensors_writer.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace optp {
namespace {

using ::testing::IsSubstring;
using namespace std::string_literals;

const std::vector<at::ScalarType> kAllDtypes = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                                at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

// Written by Python's safetensors 0.8.0:
// save({"weight": tensor([[0.5, -1, 2], [3, 4.25, -0.125]]), "half": tensor([1.5, -2.0]).bfloat16(),
//       "step": tensor(-7), "none": empty(0, 3)}, metadata={"format": "pt"})
const std::string kWrittenByPython =
    "\x10\x01\0\0\0\0\0\0"s
    R"({"__metadata__":{"format":"pt"},"step":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
    R"("none":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},)"
    R"("weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
    R"("half":{"dtype":"BF16","shape":[2],"data_offsets":[32,36]}}       )"
    "\xf9\xff\xff\xff\xff\xff\xff\xff"
    "\0\0\0\x3f\0\0\x80\xbf\0\0\0\x40\0\0\x40\x40\0\0\x88\x40\0\0\0\xbe"
    "\xc0\x3f\0\xc0"s;

std::vector<std::pair<std::string, at::Tensor>> tensors_of_python() {
  return {{"step", at::scalar_tensor(-7, at::kLong)},
          {"none", at::empty({0, 3})},
          {"weight", at::tensor({0.5, -1.0, 2.0, 3.0, 4.25, -0.125}, at::kFloat).view({2, 3})},
          {"half", at::tensor({1.5, -2.0}).to(at::kBFloat16)}};
}

TEST(Safetensors, ReadsWhatPythonWrote) {
  const TemporaryFolder folder;
  write_bytes(folder / "python.safetensors", kWrittenByPython);
  const SafetensorsFile file(folder / "python.safetensors");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"step", "none", "weight", "half"}));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_TRUE(file.contains("half"));
  EXPECT_FALSE(file.contains("__metadata__"));
  for (const auto& [name, expected] : tensors_of_python()) {
    EXPECT_EQ(file.dtype(name), expected.scalar_type()) << name;
    EXPECT_EQ(file.shape(name), expected.sizes()) << name;
    EXPECT_TRUE(at::equal(file.read(name), expected)) << name;
  }
}

TEST(Safetensors, WritesTheBytesThatPythonWrites) {
  const TemporaryFolder folder;
  write_safetensors(folder / "own.safetensors", tensors_of_python(), {{"format", "pt"}});
  EXPECT_EQ(read_bytes(folder / "own.safetensors"), kWrittenByPython);
}

TEST(Safetensors, RoundTripsEveryDtypeInAnyOrder) {
  const TemporaryFolder folder;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (auto dtype = kAllDtypes.rbegin(); dtype != kAllDtypes.rend(); ++dtype) {  // odd sizes first: nothing is aligned
    const at::Tensor values = (at::arange(15, at::kDouble) - 7).view({3, 5});
    tensors.emplace_back("tensor of " + std::string(toString(*dtype)),
                         (*dtype == at::kByte ? values + 240 : values).to(*dtype));
  }
  tensors.emplace_back("transposed", at::arange(6).view({2, 3}).t());
  tensors.emplace_back("scalar", at::scalar_tensor(2.5));
  tensors.emplace_back("needs a gradient", at::ones({2}).requires_grad_());
  tensors.emplace_back("\"\\\n\u00e9", at::ones({0}));
  write_safetensors(folder / "all.safetensors", tensors, {{"key", "value \u20ac"}});
  const SafetensorsFile file(folder / "all.safetensors");
  EXPECT_EQ(file.metadata().at("key"), "value \u20ac");
  ASSERT_EQ(file.names().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    EXPECT_EQ(file.names()[i], name);
    const at::Tensor back = file.read(name);
    EXPECT_EQ(back.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(back, tensor)) << name;
  }
}

TEST(Safetensors, ReadTensorOutlivesTheFile) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", {{"a", at::arange(10)}});
  at::Tensor tensor;
  {
    const SafetensorsFile file(folder / "a.safetensors");
    tensor = file.read("a");
  }
  tensor.add_(1);
  EXPECT_TRUE(at::equal(tensor, at::arange(1, 11)));
}

TEST(Safetensors, RangesEqualSlicesOfTheWhole) {
  const TemporaryFolder folder;
  const at::Tensor whole = at::randn({7, 11, 5});
  write_safetensors(folder / "a.safetensors", {{"a", whole}});
  const SafetensorsFile file(folder / "a.safetensors");
  for (int64_t dim = 0; dim < 3; ++dim) {
    for (int64_t start = 0; start <= whole.size(dim); ++start) {
      for (int64_t size = 0; size <= whole.size(dim) - start; ++size) {
        const at::Tensor expected = whole.narrow(dim, start, size);
        const at::Tensor out = at::full(expected.sizes(), -1.0);
        file.read_range("a", dim, start, size, out);
        ASSERT_TRUE(at::equal(out, expected)) << dim << " " << start << " " << size;
      }
    }
  }
}

TEST(Safetensors, RangesConvertBetweenFloatingPointTypes) {
  const TemporaryFolder folder;
  // More elements than one staged piece, and no multiple of it.
  const at::Tensor whole = at::randn({1001, 777}, at::kDouble) * 100;
  for (const auto stored : {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble}) {
    const at::Tensor original = whole.to(stored);
    write_safetensors(folder / "a.safetensors", {{"odd", at::ones({3}, at::kByte)}, {"a", original}});
    const SafetensorsFile file(folder / "a.safetensors");
    for (const auto wanted : {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble}) {
      const at::Tensor rows = at::empty({500, 777}, wanted);
      file.read_range("a", 0, 501, 500, rows);
      EXPECT_TRUE(at::equal(rows, original.narrow(0, 501, 500).to(wanted))) << stored << " to " << wanted;
      const at::Tensor columns = at::empty({1001, 400}, wanted).requires_grad_();
      file.read_range("a", 1, 377, 400, columns);
      EXPECT_TRUE(at::equal(columns, original.narrow(1, 377, 400).to(wanted))) << stored << " to " << wanted;
    }
  }
}

TEST(Safetensors, HalfPrecisionBitsConvertExactly) {
  const TemporaryFolder folder;
  // 1.5, -2, the smallest subnormal, infinity; in bfloat16 1.5, -2, 2^-133, infinity.
  write_bytes(folder / "a.safetensors",
              safetensors_bytes(R"({"f":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},)"
                                R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]}})",
                                "\x00\x3e\x00\xc0\x01\x00\x00\x7c\xc0\x3f\x00\xc0\x01\x00\x80\x7f"s));
  const SafetensorsFile file(folder / "a.safetensors");
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor out = at::empty({4});
  file.read_range("f", -1, 0, 0, out);
  EXPECT_TRUE(at::equal(out, at::tensor({1.5f, -2.0f, 0x1p-24f, infinity})));
  file.read_range("b", -1, 0, 0, out);
  EXPECT_TRUE(at::equal(out, at::tensor({1.5f, -2.0f, 0x1p-133f, infinity})));
}

TEST(Safetensors, AnyByteIsABool) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.safetensors",
              safetensors_bytes(R"({"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}})", "\x00\x01\x02\xff"s));
  const at::Tensor read = SafetensorsFile(folder / "a.safetensors").read("a");
  EXPECT_TRUE(at::equal(read.view(at::kByte), at::tensor({0, 1, 1, 1}, at::kByte)));
}

TEST(Safetensors, AnEmptyTensorOfManyRowsIsReadAtOnce) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.safetensors",
              safetensors_bytes(R"({"a":{"dtype":"F32","shape":[1152921504606846976,0],"data_offsets":[0,0]}})", ""));
  EXPECT_EQ(SafetensorsFile(folder / "a.safetensors").read("a").size(0), int64_t{1} << 60);
}

// Kilobytes of the file that are in this process's memory.
int64_t resident_kilobytes(const std::filesystem::path& path) {
  std::ifstream maps("/proc/self/smaps");
  int64_t sum = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ')) inside = line.ends_with(path.string());
    if (inside && line.starts_with("Rss:")) sum += std::stoll(line.substr(4));
  }
  return sum;
}

// Adds up what the CPU allocator hands out.
struct AllocationCounter : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    allocated += std::max<int64_t>(size, 0);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t allocated = 0;
};

TEST(Safetensors, RangeTouchesOnlyItsPagesAndAllocatesLittle) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", {{"a", at::zeros({1024, 16384}, at::kHalf)}});  // 32 MiB
  const SafetensorsFile file(folder / "a.safetensors");
  const at::Tensor out = at::empty({128, 16384});
  const auto counter = std::make_shared<AllocationCounter>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
    file.read_range("a", 0, 512, 128, out);  // 4 MiB
  }
  const int64_t resident = resident_kilobytes(file.path());
  EXPECT_GE(resident, 4 << 10);
  EXPECT_LE(resident, 9 << 10);  // the kernel maps neighbours of a touched page, up to a huge page on either side
  EXPECT_GT(counter->allocated, 0);
  EXPECT_LE(counter->allocated, 1 << 17);
}

TEST(Safetensors, WrongReadsAreErrors) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", {{"a", at::ones({4, 6})}, {"i", at::arange(4)}});
  const SafetensorsFile file(folder / "a.safetensors");
  const auto range_error = [&](const std::string& name, int64_t dim, int64_t start, int64_t size,
                               const at::Tensor& out) {
    return value_error([&] { file.read_range(name, dim, start, size, out); });
  };
  EXPECT_PRED_FORMAT2(IsSubstring, "has no tensor \"b\"", value_error([&] { file.read("b"); }));
  EXPECT_PRED_FORMAT2(IsSubstring, "no dimension 2: its shape is [4, 6]", range_error("a", 2, 0, 1, at::empty({1})));
  EXPECT_PRED_FORMAT2(IsSubstring, "no dimension -2", range_error("a", -2, 0, 1, at::empty({1})));
  EXPECT_PRED_FORMAT2(IsSubstring, "the range of 2 from 3 is not within dimension 0",
                      range_error("a", 0, 3, 2, at::empty({2, 6})));
  EXPECT_PRED_FORMAT2(IsSubstring, "the range of 2 from -1", range_error("a", 1, -1, 2, at::empty({4, 2})));
  EXPECT_PRED_FORMAT2(IsSubstring, "not within",
                      range_error("a", 0, std::numeric_limits<int64_t>::max(), 2, at::empty({2, 6})));
  EXPECT_PRED_FORMAT2(IsSubstring, "of shape [2, 6], not one of [3, 6]", range_error("a", 0, 0, 2, at::empty({3, 6})));
  EXPECT_PRED_FORMAT2(IsSubstring, "contiguous", range_error("a", 0, 0, 2, at::empty({6, 2}).t()));
  EXPECT_PRED_FORMAT2(IsSubstring, "stored as Long and does not convert to Float",
                      range_error("i", -1, 0, 0, at::empty({4})));
}

TEST(Safetensors, FilesThatCannotBeOpenedAreErrors) {
  const TemporaryFolder folder;
  const auto open_error = [](const std::filesystem::path& path) {
    const std::string message = value_error([&] { SafetensorsFile file(path); });
    EXPECT_PRED_FORMAT2(IsSubstring, path.string(), message);
    return message;
  };
  EXPECT_PRED_FORMAT2(IsSubstring, "No such file", open_error(folder / "missing"));
  EXPECT_PRED_FORMAT2(IsSubstring, "not a regular file", open_error(folder.path()));
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_PRED_FORMAT2(IsSubstring, "not a regular file", open_error(folder / "fifo"));
  write_bytes(folder / "empty", "");
  EXPECT_PRED_FORMAT2(IsSubstring, "the file is empty", open_error(folder / "empty"));
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const TemporaryFolder folder;
  for (size_t size = 1; size < kWrittenByPython.size(); ++size) {
    write_bytes(folder / "cut.safetensors", kWrittenByPython.substr(0, size));
    EXPECT_PRED_FORMAT2(IsSubstring, "cut.safetensors",
                        value_error([&] { SafetensorsFile file(folder / "cut.safetensors"); }));
  }
}

TEST(Safetensors, AnyByteOfTheHeaderMayBeWrong) {
  // Whatever a byte becomes, the file is refused or every tensor can be read.
  const TemporaryFolder folder;
  const size_t data_start = kWrittenByPython.size() - 36;
  for (size_t i = 0; i < data_start; ++i) {
    for (const char byte : "\0\xff\"}19"s) {
      std::string bytes = kWrittenByPython;
      bytes[i] = byte;
      write_bytes(folder / "a.safetensors", bytes);
      try {
        const SafetensorsFile file(folder / "a.safetensors");
        for (const std::string& name : file.names()) EXPECT_EQ(file.read(name).sizes(), file.shape(name));
      } catch (const c10::ValueError&) {  // NOLINT(bugprone-empty-catch): a refusal is as good
      }
    }
  }
}

TEST(SafetensorsWriter, ReplacesTheFileAndLeavesNothingElse) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.safetensors", "old");
  write_safetensors(folder / "a.safetensors", {{"a", at::ones({2})}});
  EXPECT_TRUE(at::equal(SafetensorsFile(folder / "a.safetensors").read("a"), at::ones({2})));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(SafetensorsWriter, AFullDiskLeavesTheOldFileAndNoOther) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.safetensors", "old");
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{.rlim_cur = 100'000, .rlim_max = limit.rlim_max};
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);  // then write() fails instead
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      value_error([&] { write_safetensors(folder / "a.safetensors", {{"a", at::ones({100'000})}}); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_PRED_FORMAT2(IsSubstring, "cannot write " + (folder / "a.safetensors").string() + ": File too large", message);
  EXPECT_EQ(read_bytes(folder / "a.safetensors"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(SafetensorsWriter, WhatCannotBeWrittenIsAnErrorThatLeavesNothing) {
  const TemporaryFolder folder;
  const auto write_error = [](const std::filesystem::path& path,
                              const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
    const std::string message = value_error([&] { write_safetensors(path, tensors, metadata); });
    EXPECT_PRED_FORMAT2(IsSubstring, "cannot write " + path.string(), message);
    return message;
  };
  const at::Tensor one = at::ones({1});
  EXPECT_PRED_FORMAT2(IsSubstring, "No such file", write_error(folder / "missing/a", {{"a", one}}));
  EXPECT_PRED_FORMAT2(IsSubstring, "the name \"a\" is taken", write_error(folder / "a", {{"a", one}, {"a", one}}));
  EXPECT_PRED_FORMAT2(IsSubstring, "\"__metadata__\" is taken", write_error(folder / "a", {{"__metadata__", one}}));
  EXPECT_PRED_FORMAT2(IsSubstring, "\"a\" is undefined", write_error(folder / "a", {{"a", at::Tensor()}}));
  EXPECT_PRED_FORMAT2(IsSubstring, "dtype ComplexFloat", write_error(folder / "a", {{"a", one.to(at::kComplexFloat)}}));
  EXPECT_PRED_FORMAT2(IsSubstring, "not valid UTF-8", write_error(folder / "a", {{"\xff", one}}));
  EXPECT_PRED_FORMAT2(IsSubstring, "not valid UTF-8", write_error(folder / "a", {{"a", one}}, {{"a", "\xc3"}}));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  std::filesystem::create_directory(folder / "folder");
  EXPECT_PRED_FORMAT2(IsSubstring, "it exists and is not a regular file", write_error(folder / "folder", {{"a", one}}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

}  // namespace
}  // namespace optp

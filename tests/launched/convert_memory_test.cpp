// Conversions stream: however large the model, no more of it is in memory than a tensor.
#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// Bytes that a process has allocated; mapped files do not count. 0 when it is gone.
int64_t anonymous_memory(int pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) * 1024;
  }
  return 0;
}

// Runs optp and returns the most that it had allocated at any time, looking a thousand times a second.
int64_t peak_of(std::vector<std::string> arguments, const TemporaryFolder& folder) {
  arguments.insert(arguments.begin(), OPTP_PROGRAM);
  StartedProgram program(arguments, {}, folder.path());
  int64_t peak = 0;
  for (int64_t now = 1; now > 0; now = anonymous_memory(program.pid())) {
    peak = std::max(peak, now);
    const timespec millisecond{.tv_sec = 0, .tv_nsec = 1'000'000};
    nanosleep(&millisecond, nullptr);
  }
  const ProgramResult result = program.wait(60);
  EXPECT_EQ(result.status, 0) << result.err;
  return peak;
}

// 103 million parameters: 413 MB in float32, 207 in float16. The largest tensor, fc1 of 4096 x 1024, has 17 MB.
TEST(ConvertMemory, StaysBelowTheLargestTensorAndTheProgram) {
  const TemporaryFolder folder;
  const int64_t limit = 16 * kMiB * 13 / 10 + 256 * kMiB;
  const std::string half = folder / "half", whole = folder / "whole";
  const int64_t fresh = peak_of({"convert", "--from", "opt-tiny", "--hidden-size", "1024", "--num-layers", "8",
                                 "--vocab-size", "2000", "--to", half, "--format", "hf", "--dtype", "float16"},
                                folder);
  const int64_t stored =
      peak_of({"convert", "--from", half, "--to", whole, "--format", "hf", "--dtype", "float32"}, folder);
  EXPECT_EQ(std::filesystem::file_size(std::filesystem::path(whole) / "model.safetensors") / 1'000'000, 413U);
  EXPECT_LT(fresh, limit);
  EXPECT_LT(stored, limit);
  RecordProperty("fresh_MiB", static_cast<int>(fresh / kMiB));
  RecordProperty("stored_MiB", static_cast<int>(stored / kMiB));
}

}  // namespace
}  // namespace optp::testing

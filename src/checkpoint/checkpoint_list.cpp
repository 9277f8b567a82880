#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/checkpoint/atomic_folder.h"
#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/training_checkpoint.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

// The step in a name that checkpoint_name gives; nothing for other names.
std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || stopped != end || step < 0 || name != checkpoint_name(step)) return std::nullopt;
  return step;
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof(name), "step-%08lld", static_cast<long long>(step));
  return name;
}

std::vector<fs::path> whole_checkpoints(const fs::path& folder) {
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::optional<int64_t> step = step_of(entry->path().filename().string());
    std::error_code ignored;
    if (step && entry->is_directory(ignored)) found.emplace_back(*step, entry->path());
  }
  std::sort(found.rbegin(), found.rend());
  std::vector<fs::path> paths;
  for (auto& entry : found) paths.push_back(std::move(entry.second));
  return paths;
}

void remove_old_checkpoints(const fs::path& folder, int64_t keep) {
  TORCH_CHECK_VALUE(keep >= 1, "at least one checkpoint must be kept, not ", keep, ".");
  bool intact = false;  // one of those that stay still has all its files
  int64_t place = 0;
  for (const fs::path& checkpoint : whole_checkpoints(folder)) {
    const bool needed = !intact && has_all_checkpoint_files(checkpoint);
    intact = intact || needed;
    if (place++ >= keep && !needed) remove_folder(checkpoint);
  }
  remove_unfinished_checkpoints(folder);
}

void remove_unfinished_checkpoints(const fs::path& folder) { remove_partial_folders(folder); }

}  // namespace optp

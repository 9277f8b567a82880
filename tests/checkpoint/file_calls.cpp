#include "tests/checkpoint/file_calls.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <utility>

namespace optp::testing {
namespace {

FileCallPlan current_plan;
std::atomic<int> calls_counted = 0;

std::string path_of(int descriptor) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t size = ::readlink(link.c_str(), path, sizeof(path));
  return size > 0 ? std::string(path, static_cast<size_t>(size)) : "";
}

std::string path_at(int folder, const char* name) {
  return *name == '/' || folder == AT_FDCWD ? name : path_of(folder) + "/" + name;
}

enum class Verdict { pass, fail, die };

Verdict judge(const std::string& path) {
  if (current_plan.path.empty() || path.find(current_plan.path) == std::string::npos) return Verdict::pass;
  if (++calls_counted != current_plan.call) return Verdict::pass;
  return current_plan.error != 0 ? Verdict::fail : Verdict::die;
}

// `call` unless the plan is against it. A process dies before its call, save a write, half of which it does.
template <typename Call>
int disturbed(const std::string& path, const Call& call) {
  switch (judge(path)) {
    case Verdict::die:
      ::raise(SIGKILL);
      [[fallthrough]];
    case Verdict::fail:
      errno = current_plan.error;
      return -1;
    default:
      return static_cast<int>(call());
  }
}

}  // namespace

void plan_file_calls(FileCallPlan plan) {
  current_plan = std::move(plan);
  calls_counted = 0;
}

int counted_file_calls() { return calls_counted; }

// The program's own definitions come before those of the C library, also for calls out of other libraries.
extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's own are reserved

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const auto mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : mode_t{0};
  va_end(arguments);
  const auto call = [&] { return ::syscall(SYS_openat, AT_FDCWD, path, flags, mode); };
  return (flags & O_CREAT) != 0 ? disturbed(path, call) : static_cast<int>(call());
}

ssize_t write(int descriptor, const void* data, size_t size) {
  const auto call = [&](size_t bytes) { return ::syscall(SYS_write, descriptor, data, bytes); };
  ssize_t written = 0;
  if (current_plan.path.empty()) return call(size);
  switch (judge(path_of(descriptor))) {
    case Verdict::die:
      written = call(size / 2);
      ::raise(SIGKILL);
      return written;
    case Verdict::fail:
      errno = current_plan.error;
      return -1;
    default:
      return call(size);
  }
}

int fsync(int descriptor) {
  return disturbed(path_of(descriptor), [&] { return ::syscall(SYS_fsync, descriptor); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  return disturbed(path, [&] { return ::syscall(SYS_mkdirat, AT_FDCWD, path, mode); });
}

int rename(const char* from, const char* to) noexcept {
  return disturbed(to, [&] { return ::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0); });
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  return disturbed(path_at(to_folder, to),
                   [&] { return ::syscall(SYS_renameat2, from_folder, from, to_folder, to, flags); });
}

int unlink(const char* path) noexcept {
  return disturbed(path, [&] { return ::syscall(SYS_unlinkat, AT_FDCWD, path, 0); });
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  return disturbed(path_at(folder, path), [&] { return ::syscall(SYS_unlinkat, folder, path, flags); });
}

int rmdir(const char* path) noexcept {
  return disturbed(path, [&] { return ::syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); });
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}

}  // namespace optp::testing

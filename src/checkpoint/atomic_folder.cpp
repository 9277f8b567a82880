#include "src/checkpoint/atomic_folder.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "src/checkpoint/atomic_file.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPartialSuffix = ".partial";

enum class FolderLock { taken, busy, unknown };

// Takes the lock that a writer holds on its temporary folder as long as it lives. Some network file systems know no
// locks on folders: `unknown`.
FolderLock lock_folder(int descriptor) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return FolderLock::taken;
  return errno == EWOULDBLOCK ? FolderLock::busy : FolderLock::unknown;
}

int open_folder(const fs::path& path) { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW); }

// A writer on a file system without locks counts as gone only if `even_if_unknown`.
void remove_if_abandoned(const fs::path& partial, bool even_if_unknown) {
  const int descriptor = open_folder(partial);
  if (descriptor < 0) return;
  const FolderLock lock = lock_folder(descriptor);
  std::error_code ignored;
  if (lock == FolderLock::taken || (lock == FolderLock::unknown && even_if_unknown)) fs::remove_all(partial, ignored);
  ::close(descriptor);
}

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : "."; }

}  // namespace

AtomicFolder::AtomicFolder(fs::path path, unsigned mode)
    : path_(std::move(path)), temporary_(partial_folder_of(path_)) {
  std::error_code error;
  fs::create_directories(parent_of(path_), error);
  TORCH_CHECK_VALUE(!error, "cannot write ", path_.string(), ": cannot create the folder ", parent_of(path_).string(),
                    ": ", error.message(), ".");
  create(mode);
}

void AtomicFolder::create(unsigned mode) {
  bool created = ::mkdir(temporary_.c_str(), mode) == 0;
  if (!created && errno == EEXIST) {
    remove_if_abandoned(temporary_, /*even_if_unknown=*/true);
    created = ::mkdir(temporary_.c_str(), mode) == 0;
    TORCH_CHECK_VALUE(created || errno != EEXIST, "cannot write ", path_.string(), ": another process is writing it (",
                      temporary_.string(), ").");
  }
  check(created);
  lock_ = open_folder(temporary_);
  check(lock_ >= 0);
  lock_folder(lock_);
}

AtomicFolder::~AtomicFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
  ::close(lock_);
}

void AtomicFolder::commit() {
  check(::fsync(lock_) == 0 || errno == EINVAL);  // EINVAL: a file system that cannot flush a folder
  take_name();
  committed_ = true;
  flush_folder(parent_of(path_));
}

// If something has the name, the two change places at once; only then is the old one removed.
void AtomicFolder::take_name() const {
  std::error_code ignored;
  if (!fs::exists(path_, ignored)) return check(::rename(temporary_.c_str(), path_.c_str()) == 0);
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(temporary_, ignored);
    return;
  }
  // Some network file systems cannot exchange: for a moment nothing has the name.
  check(errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP);
  remove_folder(path_);
  check(::rename(temporary_.c_str(), path_.c_str()) == 0);
}

void AtomicFolder::check(bool succeeded) const {
  TORCH_CHECK_VALUE(succeeded, "cannot write ", path_.string(), ": ", std::system_category().message(errno), ".");
}

fs::path new_folder(const fs::path& path) {
  std::error_code ignored;
  fs::path folder = path.has_filename() ? path : path.parent_path();  // "folder/"
  if (!fs::exists(fs::symlink_status(folder, ignored))) return folder;
  TORCH_CHECK_VALUE(fs::is_directory(folder, ignored), "cannot write the folder ", folder.string(),
                    ": a file has that name; choose another.");
  TORCH_CHECK_VALUE(fs::is_empty(folder, ignored), "cannot write the folder ", folder.string(),
                    ": it exists and is not empty; choose another name, or empty it first.");
  return fs::canonical(folder, ignored);
}

fs::path partial_folder_of(const fs::path& path) {
  return path.parent_path() / ("." + path.filename().string() + kPartialSuffix);
}

void remove_abandoned(const fs::path& path) { remove_if_abandoned(partial_folder_of(path), /*even_if_unknown=*/false); }

void remove_partial_folders(const fs::path& parent) {
  std::error_code error;
  for (fs::directory_iterator entry(parent, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".") && name.ends_with(kPartialSuffix)) {
      remove_if_abandoned(entry->path(), /*even_if_unknown=*/true);
    }
  }
}

void remove_folder(const fs::path& path) {
  // Once it has lost its name, whatever happens next leaves no folder that looks whole and is not.
  const fs::path away = partial_folder_of(path.string() + ".old");
  std::error_code error;
  fs::remove_all(away, error);
  fs::rename(path, away, error);
  if (!error) flush_folder(parent_of(path));
  if (!error) fs::remove_all(away, error);
  TORCH_CHECK_VALUE(!error, "cannot remove ", path.string(), ": ", error.message(), ".");
}

}  // namespace optp

// A folder that appears under its name only when it is whole.
#pragma once

#include <filesystem>

namespace optp {

/// Call order: construct, fill temporary(), commit once. Destroyed without commit, it leaves no trace, and a folder
/// that had the name before keeps its content. A killed process leaves `.NAME.partial` beside the name: the next
/// AtomicFolder of that name, or remove_partial_folders, clears it away. Every error is a c10::ValueError that names
/// the path and the reason.
class AtomicFolder {
 public:
  /// Creates the temporary folder, and those above it that are missing. `mode`: its permissions, less what the
  /// process's umask takes away; as it is, for this user alone. Throws also when another process is writing the same
  /// folder.
  explicit AtomicFolder(std::filesystem::path path, unsigned mode = 0700);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }

  /// Flushes the folder's entries (the files in it are flushed by who wrote them) and takes the name, replacing what
  /// had it.
  void commit();

 private:
  void create(unsigned mode);
  void take_name() const;
  void check(bool succeeded) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int lock_ = -1;  // the open temporary folder; a lock on it says that its writer is alive
  bool committed_ = false;
};

/// The full path of a folder that a user wants written: `path` itself, or what a link there leads to. Throws
/// c10::ValueError unless it is empty or not there yet, so that nothing of the user's is replaced.
std::filesystem::path new_folder(const std::filesystem::path& path);

/// `.NAME.partial` beside `path`, where its content stands until it is whole.
std::filesystem::path partial_folder_of(const std::filesystem::path& path);

/// Removes `.NAME.partial` of `path` if its writer is known to be gone. For those who work on the folder with its
/// writer: they may end later.
void remove_abandoned(const std::filesystem::path& path);

/// Removes every `.NAME.partial` folder in `parent` whose writer is gone: what killed processes left. Errors are
/// ignored.
void remove_partial_folders(const std::filesystem::path& parent);

/// Removes the folder at `path` so that a crash in between leaves the whole of it, or a `.NAME.partial`. Throws
/// c10::ValueError that names the path and the reason.
void remove_folder(const std::filesystem::path& path);

}  // namespace optp

#include "src/data/open_tokens.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <system_error>

#include "parallel/process_group.h"
#include "src/checkpoint/atomic_file.h"
#include "src/data/text_reader.h"
#include "src/data/token_writer.h"
#include "src/data/tokenize.h"
#include "src/data/tokenizer.h"
#include "src/data/xxh64.h"
#include "src/log.h"
#include "src/progress.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

// Part of every key: another number wherever the same text and tokenizer would give another file.
constexpr const char* kCacheFormat = "1";

// Held by whoever fills an entry of the cache, on this host or, where the file system knows locks, another.
class CacheLock {
 public:
  explicit CacheLock(const fs::path& path) : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    TORCH_CHECK_VALUE(descriptor_ >= 0, "cannot write ", path.string(), ": ", std::system_category().message(errno),
                      "; set XDG_CACHE_HOME to a folder that can be written, or use optp tokenize and pass the .npy.");
  }
  ~CacheLock() { ::close(descriptor_); }
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;

  // True when it is held. False, without `wait`, when someone else holds it, and on file systems that have no locks:
  // that is no reason to fail, since entries appear whole in any case.
  bool acquire(bool wait) const {
    int result = 0;
    do {
      result = ::flock(descriptor_, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    return result == 0;
  }

 private:
  int descriptor_;
};

uint64_t hash_of_text(const std::string& path) {
  TextReader reader(path);
  Progress progress("read " + reader.path().filename().string(), reader.size(), "bytes");
  for (std::string block; reader.read(block); block.clear()) progress.update(reader.position());
  return reader.hash();
}

// The entry if it is there and whole; one that was damaged since is not.
std::shared_ptr<const TokenFile> open_entry(const fs::path& path, const fs::path& text) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return nullptr;
  try {
    return std::make_shared<const TokenFile>(path, text);
  } catch (const c10::ValueError&) {
    return nullptr;
  }
}

std::shared_ptr<const TokenFile> open_text(const std::string& path, const Tokenizer& tokenizer,
                                           const ProcessGroup& world) {
  const uint64_t text_hash = hash_of_text(path);
  const std::string tokenizer_key = hex64(xxh64(tokenizer.fingerprint() + " " + kCacheFormat));
  const fs::path folder = cache_folder() / "tokens" / (hex64(text_hash) + "-" + tokenizer_key);
  const fs::path entry = folder / "tokens.npy";
  std::error_code error;
  fs::create_directories(folder, error);
  fs::permissions(folder, fs::perms::owner_all, error);  // the ids are the text
  std::shared_ptr<const TokenFile> ready = open_entry(entry, path);
  std::optional<CacheLock> lock;
  if (!ready) lock.emplace(folder / "lock");

  // Rank 0 is the first to ask for the lock, since only it shows progress. A rank that finds the entry waits here too.
  if (lock && world.rank() == 0 && !lock->acquire(/*wait=*/false)) {
    log_line(LogLevel::info, "another run may be making token ids of " + path + "; waiting for it");
  }
  world.barrier("open " + path);
  if (ready) return ready;
  lock->acquire(/*wait=*/true);
  if (auto filled = open_entry(entry, path)) return filled;

  remove_abandoned_files(folder);
  TextReader text(path);
  TokenWriter ids(entry, tokenizer.vocab_size());
  tokenize(text, tokenizer, /*document_separator=*/"", ids);
  TORCH_CHECK_VALUE(text.hash() == text_hash, path, " changed while it was read; start again when it is complete.");
  ids.commit();
  log_line(LogLevel::info, path + ": " + std::to_string(ids.count()) + " tokens, kept in " + entry.string());
  return std::make_shared<const TokenFile>(entry, path);
}

}  // namespace

std::vector<std::shared_ptr<const TokenFile>> open_tokens(const std::vector<std::string>& paths,
                                                          const std::string& tokenizer, const ProcessGroup& world) {
  std::unique_ptr<Tokenizer> opened;  // only where a text needs it
  std::vector<std::shared_ptr<const TokenFile>> files;
  for (const std::string& path : paths) {
    const std::string extension = fs::path(path).extension().string();
    TORCH_CHECK_VALUE(extension == ".npy" || extension == ".txt", path,
                      " is neither .txt nor .npy; rename a text, or make token ids of it with optp tokenize.");
    if (extension == ".npy") {
      files.push_back(std::make_shared<const TokenFile>(path));
    } else {
      if (!opened) opened = open_tokenizer(tokenizer);
      files.push_back(open_text(path, *opened, world));
    }
  }
  return files;
}

fs::path cache_folder() {
  const auto value = [](const char* name) {
    const char* text = std::getenv(name);
    return fs::path(text == nullptr ? "" : text);
  };
  if (!value("XDG_CACHE_HOME").empty()) return value("XDG_CACHE_HOME") / "optp";
  TORCH_CHECK_VALUE(!value("HOME").empty(),
                    "texts are kept as token ids in a cache folder, but neither XDG_CACHE_HOME "
                    "nor HOME is set; set one, or use optp tokenize and pass the .npy.");
  return value("HOME") / ".cache" / "optp";
}

}  // namespace optp

#include "parallel/host_process.h"

#include <c10/util/StringUtil.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace optp {

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::string host_identity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::error_code error;
  const std::string numbering = std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
  return c10::str(boot, " ", numbering, " ", geteuid());
}

bool process_has_ended(pid_t process) {
  const int file = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  if (file < 0) return errno == ESRCH;
  pollfd ended{file, POLLIN, 0};  // readable when the process has ended, a zombie included
  const bool has_ended = poll(&ended, 1, 0) == 1;
  close(file);
  return has_ended;
}

}  // namespace optp

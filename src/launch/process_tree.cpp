#include "src/launch/process_tree.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace optp {

namespace {

// Calls `visit` for every process id that the kernel's list `path` names.
template <typename Visit>
void for_each_child(const char* path, const Visit& visit) {
  const int list = open(path, O_RDONLY | O_CLOEXEC);
  if (list < 0) return;
  pid_t pid = 0;
  char piece[512];
  for (ssize_t count = read(list, piece, sizeof(piece)); count > 0; count = read(list, piece, sizeof(piece))) {
    for (ssize_t i = 0; i < count; ++i) {
      if (piece[i] >= '0' && piece[i] <= '9') {
        pid = 10 * pid + (piece[i] - '0');
      } else if (pid > 0) {  // a space follows every number
        visit(pid);
        pid = 0;
      }
    }
  }
  close(list);
}

}  // namespace

void adopt_orphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

int signal_children(int signal) {
  int reached = 0;
  for_each_child("/proc/thread-self/children", [&](pid_t pid) { reached += kill(pid, signal) == 0; });
  return reached;
}

void signal_tree(pid_t root, int signal) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/task/%d/children", root, root);
  for_each_child(path, [&](pid_t pid) { signal_tree(pid, signal); });
  kill(root, signal);
}

void kill_children() {
  // Each death can make a grandchild a child.
  while (signal_children(SIGKILL) > 0 && waitpid(-1, nullptr, 0) > 0) {
  }
}

}  // namespace optp

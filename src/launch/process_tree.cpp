#include "src/launch/process_tree.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace optp {

void adopt_orphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

int signal_children(int signal) {
  const int list = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
  if (list < 0) return 0;
  int reached = 0;
  pid_t pid = 0;
  char piece[4096];
  for (ssize_t count = read(list, piece, sizeof(piece)); count > 0; count = read(list, piece, sizeof(piece))) {
    for (ssize_t i = 0; i < count; ++i) {
      if (piece[i] >= '0' && piece[i] <= '9') {
        pid = 10 * pid + (piece[i] - '0');
      } else if (pid > 0) {  // a space follows every number
        reached += kill(pid, signal) == 0;
        pid = 0;
      }
    }
  }
  close(list);
  return reached;
}

void kill_children() {
  // Each death can make a grandchild a child.
  while (signal_children(SIGKILL) > 0 && waitpid(-1, nullptr, 0) > 0) {
  }
}

}  // namespace optp

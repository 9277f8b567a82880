// Stands between this program and the system's calls that change files, so that a test can make any of them fail, or
// be the last thing that the process does.
#pragma once

#include <string>

namespace optp::testing {

struct FileCallPlan {
  std::string path;  ///< calls on paths that contain this are counted, others pass
  int call = 0;      ///< the one to disturb, counted from 1; 0: none
  int error = 0;     ///< what it gives as errno, doing nothing; 0: the process is killed in the middle of it
};

/// From now on, for all threads; counting starts anew.
void plan_file_calls(FileCallPlan plan);

/// How many calls have been counted.
int counted_file_calls();

}  // namespace optp::testing

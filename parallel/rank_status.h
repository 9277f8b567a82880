// What a rank is doing, in a form that it can show to the others.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace optp {

struct RankStatus {
  enum class Phase { running, failed, left };

  int64_t beats = 0;  ///< grows as long as the process runs
  Phase phase = Phase::running;
  int64_t process = 0;
  std::string host;      ///< its name
  std::string identity;  ///< host_identity()
  std::string progress;  ///< "step 12"; empty if nothing is known
  std::string failure;   ///< if it has failed, why

  // The collective that it waits in or, if it does not, that it was in last. None if `operation` is empty.
  bool waiting = false;
  std::string operation, site;
  int64_t group = 0;                  ///< 0 world, 1 tensor, 2 data
  int64_t milliseconds = 0;           ///< since the collective began, or ended
  std::array<int64_t, 3> calls = {};  ///< collectives begun so far in each group

  /// One line a field.
  std::string text() const;
  /// Reads text(). What was not written by text() gives a status with beats 0.
  static RankStatus parse(const std::string& text);

  /// "step 12, waiting for 3.2 s in all_reduce at fc2 (tensor group)" or "step 12, 0.5 s after all_reduce at ...".
  std::string doing() const;
};

/// "world", "tensor" or "data".
const char* group_name(int64_t group);

}  // namespace optp

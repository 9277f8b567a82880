#include "src/launch/rank_environment.h"

#include <iomanip>
#include <ios>
#include <random>
#include <sstream>

namespace optp {
namespace {

// Eight hexadecimal digits for each of `words`.
std::string random_digits(int words) {
  std::random_device random;
  std::ostringstream digits;
  for (int i = 0; i < words; ++i) digits << std::hex << std::setw(8) << std::setfill('0') << random();
  return digits.str();
}

}  // namespace

Variables rank_variables(const RankPlace& place, int local_rank) {
  const std::string rank = std::to_string(place.first_rank + local_rank);
  const std::string world_size = std::to_string(place.world_size);
  return {
      {"RANK", rank},
      {"LOCAL_RANK", std::to_string(local_rank)},
      {"WORLD_SIZE", world_size},
      {"LOCAL_WORLD_SIZE", std::to_string(place.local_world_size)},
      {"GROUP_RANK", std::to_string(place.node_rank)},
      {"GROUP_WORLD_SIZE", std::to_string(place.nodes)},
      {"ROLE_NAME", "default"},
      {"ROLE_RANK", rank},
      {"ROLE_WORLD_SIZE", world_size},
      {"MASTER_ADDR", place.master_addr},
      {"MASTER_PORT", std::to_string(place.master_port)},
      {"TORCHELASTIC_USE_AGENT_STORE", "True"},
      {"TORCHELASTIC_RESTART_COUNT", std::to_string(place.restart_count)},
      {"TORCHELASTIC_MAX_RESTARTS", std::to_string(place.max_restarts)},
      {"TORCHELASTIC_RUN_ID", place.run_id},
      {"OPTP_RUN_TOKEN", place.run_token},
  };
}

bool is_run_id(const std::string& name) { return name.find('/') == std::string::npos && name != ".."; }

std::string random_run_id() { return random_digits(2); }

std::string random_run_token() { return random_digits(4); }

}  // namespace optp

#include "parallel/rank_status.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <sstream>
#include <vector>

namespace optp {

const char* group_name(int64_t group) {
  static constexpr std::array<const char*, 3> kNames{"world", "tensor", "data"};
  return kNames[static_cast<size_t>(group)];
}

std::string RankStatus::text() const {
  std::ostringstream out;
  const auto line = [](std::string field) {
    std::replace(field.begin(), field.end(), '\n', ' ');
    return field;
  };
  out << beats << '\n' << static_cast<int>(phase) << '\n' << process << '\n' << line(host) << '\n' << line(identity);
  out << '\n' << line(progress) << '\n' << line(failure) << '\n' << waiting << '\n' << operation << '\n' << line(site);
  out << '\n' << group << '\n' << milliseconds;
  for (const int64_t count : calls) out << '\n' << count;
  return out.str();
}

RankStatus RankStatus::parse(const std::string& text) {
  std::vector<std::string> fields;
  std::istringstream in(text);
  for (std::string field; std::getline(in, field);) fields.push_back(field);
  RankStatus status;
  if (fields.size() != 12 + status.calls.size()) return {};
  try {
    status.beats = std::stoll(fields[0]);
    status.phase = static_cast<Phase>(std::clamp(std::stoi(fields[1]), 0, 2));
    status.process = std::stoll(fields[2]);
    status.waiting = fields[7] == "1";
    status.group = std::clamp<int64_t>(std::stoll(fields[10]), 0, 2);
    status.milliseconds = std::stoll(fields[11]);
    for (size_t i = 0; i < status.calls.size(); ++i) status.calls[i] = std::stoll(fields[12 + i]);
  } catch (const std::exception&) {
    return {};
  }
  status.host = fields[3];
  status.identity = fields[4];
  status.progress = fields[5];
  status.failure = fields[6];
  status.operation = fields[8];
  status.site = fields[9];
  return status.text() == text ? status : RankStatus{};  // also where a number was out of range or had more behind it
}

std::string RankStatus::doing() const {
  const std::string step = progress.empty() ? "" : progress + ", ";
  if (operation.empty()) return step + "no collective yet";
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%.1f s", static_cast<double>(milliseconds) / 1000);
  return c10::str(step, waiting ? c10::str("waiting for ", seconds, " in ") : c10::str(seconds, " after "), operation,
                  " at ", site, " (", group_name(group), " group)");
}

}  // namespace optp

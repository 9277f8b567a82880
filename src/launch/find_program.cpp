#include "src/launch/find_program.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

namespace optp {
namespace {

bool may_be_run(const std::filesystem::path& path) {
  std::error_code ignored;
  return access(path.c_str(), X_OK) == 0 && !std::filesystem::is_directory(path, ignored);
}

}  // namespace

std::string find_program(const std::string& name) {
  const bool script = name.ends_with(".py");
  if (name.find('/') == std::string::npos) {
    const char* path = std::getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
      const std::filesystem::path candidate = std::filesystem::path(folder.empty() ? "." : folder) / name;
      if (may_be_run(candidate)) return candidate;
    }
    TORCH_CHECK_VALUE(script || !std::filesystem::exists(name), "\"", name,
                      "\" is a file here but in no folder of PATH: write ./", name);
    TORCH_CHECK_VALUE(script, "\"", name,
                      "\" is in no folder of PATH: give the program's path, after the options and --");
  }
  TORCH_CHECK_VALUE(may_be_run(name) || !std::filesystem::exists(name), "\"", name, "\" cannot be run: ",
                    script ? "write python3 " + name : "make the file executable, or name its interpreter in front");
  TORCH_CHECK_VALUE(may_be_run(name), "there is no program \"", name, "\": check its path");
  return name;
}

}  // namespace optp

#include "tests/fuzz/files.h"

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <system_error>

#include "tests/fuzz/fuzz.h"

namespace optp {

FuzzFolder::FuzzFolder() {
  std::error_code ignored;
  const std::filesystem::path memory = "/dev/shm";
  const std::filesystem::path parent =
      std::filesystem::is_directory(memory, ignored) ? memory : std::filesystem::temp_directory_path();
  std::string name = parent / "optp-fuzz-XXXXXX";
  expect(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

FuzzFolder::~FuzzFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path FuzzFolder::write(const std::string& name, std::string_view bytes) const {
  std::ofstream stream(path_ / name, std::ios::binary | std::ios::trunc);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
  expect(stream.good());
  return path_ / name;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  expect(stream.good());
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string_view take_part(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return part;
}

}  // namespace optp

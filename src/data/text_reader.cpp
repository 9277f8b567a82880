#include "src/data/text_reader.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace optp {

TextReader::TextReader(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  TORCH_CHECK_VALUE(descriptor_ >= 0, "cannot open ", path_.string(), ": ", std::system_category().message(errno), ".");
  struct stat status{};
  if (::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode)) size_ = status.st_size;
}

TextReader::~TextReader() { ::close(descriptor_); }

bool TextReader::read(std::string& text) {
  constexpr size_t kBlock = size_t{1} << 20;
  const size_t before = text.size();
  text.resize(before + kBlock);
  ssize_t count = 0;
  do {
    count = ::read(descriptor_, text.data() + before, kBlock);
  } while (count < 0 && errno == EINTR);
  const int error = errno;
  text.resize(before + static_cast<size_t>(count < 0 ? 0 : count));
  TORCH_CHECK_VALUE(count >= 0, "cannot read ", path_.string(), ": ", std::system_category().message(error), ".");
  position_ += count;
  hash_.update(std::string_view(text).substr(before));
  return count > 0;
}

}  // namespace optp

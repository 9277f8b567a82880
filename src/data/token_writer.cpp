#include "src/data/token_writer.h"

#include <bit>
#include <string>

#include "src/data/npy_header.h"

namespace optp {

static_assert(std::endian::native == std::endian::little, "ids are written as they lie in memory");

TokenWriter::TokenWriter(const std::filesystem::path& path, int64_t vocab_size)
    : file_(path), item_size_(vocab_size <= (int64_t{1} << 16) ? 2 : 4) {
  const std::string header = npy_header(item_size_, 0);
  file_.write(header.data(), header.size());
}

void TokenWriter::write(c10::ArrayRef<int64_t> ids) {
  if (item_size_ == 2) {
    narrow_.assign(ids.begin(), ids.end());
    file_.write(narrow_.data(), narrow_.size() * sizeof(uint16_t));
  } else {
    wide_.assign(ids.begin(), ids.end());
    file_.write(wide_.data(), wide_.size() * sizeof(uint32_t));
  }
  count_ += static_cast<int64_t>(ids.size());
}

void TokenWriter::commit() {
  const std::string header = npy_header(item_size_, count_);
  file_.overwrite(0, header.data(), header.size());
  file_.commit();
}

}  // namespace optp
